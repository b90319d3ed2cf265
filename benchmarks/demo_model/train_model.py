"""Trains the demo language model: a small Llama on the demo language, in float32, from scratch."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
import torch.nn.functional as F

from trail.demo import corpus, tokenizer


@dataclass(frozen=True)
class ModelShape:
    """Size of the demo model."""

    hidden_size: int = 128
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    intermediate_size: int = 384
    context_tokens: int = 1024


@dataclass(frozen=True)
class TrainSpec:
    """One training run. A step sees `groups_per_step` batches of `group_documents` documents."""

    steps: int = 1100
    groups_per_step: int = 8
    group_documents: int = 2
    warmup_steps: int = 60
    learning_rate: float = 3e-3
    weight_decay: float = 0.05
    seed: int = 1


@dataclass(frozen=True)
class Batch:
    """Documents of similar length, one a row, padded on the right.

    int64 [documents, tokens]: ids, and labels (the answer's tokens, -100 elsewhere).
    """

    ids: torch.Tensor
    labels: torch.Tensor


Progress = Callable[[int, float], None]


def build_model(shape: ModelShape, seed: int) -> Any:
    """A LlamaForCausalLM with random weights and tied embeddings."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer.token_ids()),
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.context_tokens,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.BOS_ID,
        eos_token_id=tokenizer.EOS_ID,
        pad_token_id=tokenizer.PAD_ID,
    )
    return LlamaForCausalLM(config).float()


def step_batches(spec: TrainSpec) -> Iterator[list[Batch]]:
    """Endless training steps: each draws its documents anew and groups them by length, to pad little."""
    rng = np.random.default_rng([spec.seed, 2])
    while True:
        drawn = [_draw_document(rng) for _ in range(spec.groups_per_step * spec.group_documents)]
        drawn.sort(key=lambda document: len(document[0]) + len(document[1]))
        starts = range(0, len(drawn), spec.group_documents)
        yield [_pad(drawn[start : start + spec.group_documents]) for start in starts]


def train(model: Any, spec: TrainSpec, log: TextIO, progress: Progress | None = None) -> None:
    """Trains `model` in place.

    `log` gets one JSON line for the specification and one every ten steps, losses in nats a token. Raises
    FloatingPointError where the loss stops being finite.
    """
    decay = [p for p in model.parameters() if p.dim() >= 2]
    plain = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decay, "weight_decay": spec.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=spec.learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, spec))
    parameters = sum(p.numel() for p in model.parameters())
    head = {"train": asdict(spec), "parameters": parameters, "torch": torch.__version__}
    log.write(json.dumps(head) + "\n")
    model.train()
    losses: list[float] = []
    started_s = time.monotonic()
    steps = step_batches(spec)
    for step in range(1, spec.steps + 1):
        optimizer.zero_grad(set_to_none=True)
        loss = accumulate_gradients(model, next(steps))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss)
        if not math.isfinite(losses[-1]):
            raise FloatingPointError(f"training diverged at step {step}: loss {losses[-1]}")
        if step % 10 == 0 or step == spec.steps:
            line = {
                "step": step,
                "loss": round(float(np.mean(losses[-10:])), 5),
                "learning_rate": schedule.get_last_lr()[0],
                "elapsed_s": round(time.monotonic() - started_s, 1),
            }
            log.write(json.dumps(line) + "\n")
            log.flush()
        if progress is not None:
            progress(step, losses[-1])
    model.eval()


def accumulate_gradients(model: Any, batches: list[Batch]) -> float:
    """Backward pass of one step; returns its mean loss over all answer tokens, in nats."""
    tokens = sum(int((batch.labels != -100).sum()) for batch in batches)
    total = 0.0
    for batch in batches:
        # Causal attention never looks right, where the padding is: no mask needed.
        logits = model(input_ids=batch.ids, use_cache=False).logits[:, :-1].flatten(0, 1)
        targets = batch.labels[:, 1:].flatten()
        loss = F.cross_entropy(logits, targets, ignore_index=-100, reduction="sum") / tokens
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        total += float(loss.detach())
    return total


def save_model(model: Any, directory: Path) -> None:
    """Writes the directory that transformers and vLLM load: weights, configuration, tokenizer."""
    from transformers import GenerationConfig

    directory.mkdir(parents=True, exist_ok=True)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.BOS_ID,
        eos_token_id=tokenizer.EOS_ID,
        pad_token_id=tokenizer.PAD_ID,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
    )
    model.save_pretrained(directory)
    # safetensors writes for the owner alone; a server may run as somebody else.
    (directory / "model.safetensors").chmod(0o644)
    tokenizer.save_tokenizer(directory, int(model.config.max_position_embeddings))


def load_model(directory: Path) -> Any:
    """The saved model in float32, ready for sampling."""
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def _draw_document(rng: np.random.Generator) -> tuple[tuple[int, ...], tuple[int, ...]]:
    instruction = corpus.draw_instruction(rng)
    answer = tokenizer.encode_words(corpus.draw_answer(rng, instruction))
    return tokenizer.encode_prompt(instruction.text), (*answer, tokenizer.EOS_ID)


def _pad(documents: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> Batch:
    tokens = max(len(prompt) + len(answer) for prompt, answer in documents)
    ids = np.full((len(documents), tokens), tokenizer.PAD_ID, np.int64)
    labels = np.full_like(ids, -100)
    for row, (prompt, answer) in enumerate(documents):
        end = len(prompt) + len(answer)
        ids[row, :end] = prompt + answer
        labels[row, len(prompt) : end] = answer
    return Batch(torch.from_numpy(ids), torch.from_numpy(labels))


def _rate(step: int, spec: TrainSpec) -> float:
    if step < spec.warmup_steps:
        return (step + 1) / spec.warmup_steps
    share = (step - spec.warmup_steps) / max(1, spec.steps - spec.warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, share)))
