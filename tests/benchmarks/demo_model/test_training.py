"""Batches hold what they should, and training lowers the loss reproducibly."""

import io
import json

import pytest
import torch

from benchmarks.demo_model import train_model
from trail.demo import tokenizer

SHAPE = train_model.ModelShape(hidden_size=64, layers=2, heads=2, kv_heads=1, intermediate_size=96)
SPEC = train_model.TrainSpec(steps=30, groups_per_step=3, group_documents=3, warmup_steps=5, seed=4)


def test_padding_changes_nothing() -> None:
    model = train_model.build_model(SHAPE, seed=1).eval()
    batch = next(train_model.step_batches(SPEC))[-1]
    shortest = int((batch.ids != tokenizer.PAD_ID).sum(dim=1).argmin())
    alone = batch.ids[shortest : shortest + 1]
    alone = alone[:, : int((alone != tokenizer.PAD_ID).sum())]
    assert alone.shape[1] < batch.ids.shape[1]
    with torch.inference_mode():
        padded = model(input_ids=batch.ids, use_cache=False).logits[shortest, : alone.shape[1]]
        torch.testing.assert_close(
            padded, model(input_ids=alone, use_cache=False).logits[0], atol=1e-5, rtol=0
        )


def test_labels_are_the_answers_and_their_end() -> None:
    for batch in next(train_model.step_batches(SPEC)):
        for ids, labels in zip(batch.ids.tolist(), batch.labels.tolist(), strict=True):
            answer = ids.index(tokenizer.ANSWER_ID) + 1
            end = ids.index(tokenizer.EOS_ID) + 1
            assert labels[answer:end] == ids[answer:end]
            assert set(labels[:answer] + labels[end:]) <= {-100}
            assert set(ids[end:]) <= {tokenizer.PAD_ID}


def test_a_step_weighs_every_answer_token_alike() -> None:
    """Gradients gathered batch by batch are those of the mean loss over all tokens of the step."""
    batches = next(train_model.step_batches(SPEC))
    model = train_model.build_model(SHAPE, seed=1)
    mean = train_model.accumulate_gradients(model, batches)
    whole = train_model.build_model(SHAPE, seed=1)
    losses = []
    for batch in batches:
        logits = whole(input_ids=batch.ids, use_cache=False).logits
        for row, labels in enumerate(batch.labels):
            at = torch.nonzero(labels != -100)[:, 0]
            losses.append(-torch.log_softmax(logits[row, at - 1], dim=-1)[torch.arange(len(at)), labels[at]])
    torch.cat(losses).mean().backward()
    assert mean == pytest.approx(float(torch.cat(losses).detach().mean()), rel=1e-5)
    for mine, reference in zip(model.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, reference.grad, atol=1e-6, rtol=1e-4)


def test_training_lowers_the_loss_and_the_seed_repeats_it() -> None:
    logs = []
    for _ in range(2):
        model = train_model.build_model(SHAPE, seed=SPEC.seed)
        log = io.StringIO()
        train_model.train(model, SPEC, log)
        logs.append([json.loads(line) for line in log.getvalue().splitlines()])
    first, second = logs
    assert [line["loss"] for line in first[1:]] == [line["loss"] for line in second[1:]]
    assert first[0]["train"]["seed"] == SPEC.seed
    assert first[-1]["loss"] < 0.85 * first[1]["loss"]


def test_divergence_is_reported_with_the_step() -> None:
    model = train_model.build_model(SHAPE, seed=1)
    with torch.no_grad():
        model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        train_model.train(model, SPEC, io.StringIO())
