"""What is asked of a run, checked before any process starts."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trail.predict.fingerprint import ModelDescription, ModelError, describe_model
from trail.serving.offline import EngineFacts
from trail.serving.setup import DEMO_MODEL, ModelSource, SetupError, merge_args, resolve_model
from trail.training.profile.data import read_data, skipped_text
from trail.training.profile.engine import EngineSpec
from trail.training.profile.tokenise import tokenised, within_context
from trail.training.recording.prompts import TokenPrompt, prompts_sha256
from trail.training.recording.settings import RecordingSettings
from trail.wire.ring import MAX_LAYERS

DEMO_PROMPTS = 1000
_DEMO_STREAM = 1000
"""Demo prompts come from this stream on: benchmarks draw from those of small seeds, and a predictor must not
be measured on what it was trained on."""


@dataclass(frozen=True)
class Job:
    """A model, its prompts as token ids, and how it is to be run. `notes` are for the user."""

    source: ModelSource
    model: ModelDescription
    revision: str
    prompts: list[TokenPrompt]
    notes: tuple[str, ...]
    layers: tuple[int, ...]
    every: int
    temperature: float
    top_p: float
    max_tokens: int
    samples: int
    seed: int
    shard_requests: int
    vllm_args: tuple[str, ...]

    @property
    def engine(self) -> EngineSpec:
        """What vLLM is to run."""
        return EngineSpec(
            args=("--model", self.source.vllm_model, *merge_args(self.source.default_args, self.vllm_args)),
            local_model=self.source.local,
            layers=self.layers,
            hidden_size=self.model.hidden_size,
            every=self.every,
        )

    def settings(
        self, *, max_model_len: int, dtype: str, vllm_version: str
    ) -> tuple[RecordingSettings, list[TokenPrompt]]:
        """Settings of the recording and its prompts, those that fit a context of `max_model_len` tokens.

        Raises SetupError when none fits.
        """
        prompts = within_context(self.prompts, max_model_len)
        if not prompts:
            shortest = min(len(prompt.token_ids) for prompt in self.prompts)
            raise SetupError(
                f"all {len(self.prompts)} prompts are beyond the context of {max_model_len} tokens"
                f" (the shortest has {shortest}); give shorter ones, or more context (--max-model-len)"
            )
        settings = RecordingSettings(
            model_id=self.source.served_name,
            model_revision=self.revision,
            model=self.model,
            max_model_len=max_model_len,
            dtype=dtype,
            vllm_version=vllm_version,
            vllm_args=self.vllm_args,
            layers=self.layers,
            every=self.every,
            temperature=self.temperature,
            top_p=self.top_p,
            max_tokens=self.max_tokens,
            samples=self.samples,
            seed=self.seed,
            shard_requests=self.shard_requests,
            prompts=len(prompts),
            prompts_sha256=prompts_sha256(prompts),
        )
        return settings, prompts

    def check(self, facts: EngineFacts) -> None:
        """Raise SetupError where the engine runs another model than was described."""
        if facts.hidden_size != self.model.hidden_size:
            raise SetupError(
                f"vLLM runs {self.source.name} with hidden size {facts.hidden_size}, its config.json says"
                f" {self.model.hidden_size}; give a decoder language model's directory"
            )


def prepare(args: argparse.Namespace) -> Job:
    """The job of a command line. Raises SetupError, PromptFileError or ValueError, one sentence each."""
    _check_numbers(args)
    source = resolve_model(args.model)
    if source.directory is None:
        raise SetupError(
            f"{source.name} is not on this machine; fetch it first (hf download {source.name}), or give its"
            " directory"
        )
    try:
        model = describe_model(source.directory)
    except ModelError as error:
        raise SetupError(str(error)) from error
    vllm_args = tuple(args.vllm_args)
    flags = {word.replace("_", "-") for word in vllm_args}
    if "--enable-prefix-caching" in flags:
        raise SetupError(
            "a prompt that is partly cached has no mean over its tokens; leave out --enable-prefix-caching"
        )
    layers = parse_layers(args.layers, model.num_layers)
    prompts, notes = _prompts(args, source.directory, model, trust_remote_code="--trust-remote-code" in flags)
    return Job(
        source=source,
        model=model,
        revision=model.weights_fingerprint[:12] if source.local else source.directory.name,
        prompts=prompts,
        notes=notes,
        layers=layers,
        every=args.every,
        temperature=args.temperature,
        top_p=args.top_p,
        max_tokens=args.max_tokens,
        samples=args.samples,
        seed=args.seed,
        shard_requests=args.shard_requests,
        vllm_args=vllm_args,
    )


def parse_layers(text: str, num_layers: int) -> tuple[int, ...]:
    """Layers that `--layers` names: `all` but the embedding, or numbers like `4,5`. Raises SetupError."""
    there = f"this model has hidden_states[0] to hidden_states[{num_layers - 1}]"
    if text == "all":
        layers = tuple(range(1, num_layers))
    else:
        try:
            layers = tuple(sorted({int(part) for part in text.split(",") if part.strip()}))
        except ValueError:
            raise SetupError(f"--layers {text}: give all, or numbers like 4,5; {there}") from None
    outside = [layer for layer in layers if not 0 <= layer < num_layers]
    if outside or not layers:
        named = f"no layer {outside[0]}" if outside else "no layers"
        raise SetupError(f"--layers {text}: {named}; {there}")
    if len(layers) > MAX_LAYERS:
        spread = ",".join(map(str, layers[:: -(-len(layers) // MAX_LAYERS)]))
        raise SetupError(
            f"--layers {text}: {len(layers)} layers are more than the {MAX_LAYERS} that can be recorded in"
            f" one pass; give some of them, for example --layers {spread}"
        )
    return layers


def _prompts(
    args: argparse.Namespace,
    directory: Path,
    model: ModelDescription,
    *,
    trust_remote_code: bool,
) -> tuple[list[TokenPrompt], tuple[str, ...]]:
    if args.prompts == DEMO_MODEL:
        if args.model != DEMO_MODEL:
            raise SetupError("--prompts demo are the demo model's; give --prompts FILE for another model")
        from trail.demo.corpus import demo_prompts

        drawn = demo_prompts(args.limit or DEMO_PROMPTS, _DEMO_STREAM + args.seed)
        return [TokenPrompt(tuple(p.token_ids), p.kind) for p in drawn], ()
    path = Path(args.prompts)
    data = read_data(path, args.format, args.limit)
    prompts = tokenised(
        data.prompts,
        path,
        directory,
        int(model.architecture["vocab_size"]),
        trust_remote_code=trust_remote_code,
    )
    return prompts, (f"prompts: {len(prompts)} from {path}{skipped_text(data.skipped)}",)


def _check_numbers(args: argparse.Namespace) -> None:
    for name in ("samples", "every", "max_tokens", "shard_requests", "limit"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise SetupError(f"--{name.replace('_', '-')} must be at least 1, got {value}")
    if args.seed < 0:
        raise SetupError(f"--seed must be at least 0, got {args.seed}")
    if not (args.temperature >= 0 and 0 < args.top_p <= 1):
        raise SetupError(
            f"--temperature must be at least 0 and --top-p above 0 and at most 1, got {args.temperature} and"
            f" {args.top_p}"
        )
    if args.temperature == 0 and args.samples > 1:
        raise SetupError("at --temperature 0 every sample of a prompt is the same; give --samples 1")


def beyond_context_note(given: Sequence[TokenPrompt], kept: Sequence[TokenPrompt], max_model_len: int) -> str:
    """What to tell about prompts that were left out; empty where none was."""
    left_out = len(given) - len(kept)
    return f"prompts: {left_out} left out, beyond the context of {max_model_len} tokens" if left_out else ""
