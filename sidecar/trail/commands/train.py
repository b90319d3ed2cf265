"""`trail train RECORDING --out PREDICTOR`: options, and what is told of the result."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from trail.predict.manifest import ArtefactError, Manifest
from trail.report.stages import shown

if TYPE_CHECKING:  # they bring torch in, which --help can do without
    from trail.training.fitting import Corpus
    from trail.training.train.job import ServedModel

TOKENIZER_FILE = "tokenizer.json"


def configure(parser: argparse.ArgumentParser) -> None:
    """Options of `trail train`."""
    parser.description = (
        "Train a predictor on what `trail profile` recorded: choice of layer, probe, filter and prompt"
        " predictor; or a prompt predictor alone, from prompts and lengths of answers. Prompts are split by a"
        " hash of their tokens; errors shown are on prompts not trained on."
    )
    add = parser.add_argument
    add(
        "recording",
        type=Path,
        help="directory made by `trail profile`, or a file of JSON lines with prompt_token_ids or prompt, and"
        " output_tokens",
    )
    add("--model", type=Path, help="directory of the served model, for a file of lengths")
    add(
        "--out", type=Path, required=True, help="directory of the predictor; an earlier one is replaced whole"
    )
    add("--recipe", default="default", help="default or trail-paper (%(default)s)")
    add("--layers", default="", help="layers to try, for example 4,5 (all that were recorded)")
    add("--bins", type=int, help="number of bins (the recipe's)")
    add("--epochs", type=int, help="most epochs of the probe (the recipe's)")
    add(
        "--no-prompt",
        action="store_true",
        help="without prompt predictor; the probe makes the first prediction",
    )
    add(
        "--encoder",
        help="prompt predictor: base, small (four times as fast), or a pretrained BERT-type checkpoint, a"
        " directory or a name on the Hugging Face hub (the recipe's, base)",
    )
    add(
        "--tokenizer",
        type=Path,
        help="tokenizer.json of the recorded model, for a pretrained encoder (the one beside the model)",
    )
    add("--held-out", type=float, help="share of prompts to judge on (the recipe's, 0.1)")
    add("--seed", type=int, default=0, help="of weights, batches and split (%(default)s)")
    add("--device", default="cpu", help="where the probe is trained: cpu or cuda (%(default)s)")
    add("--threads", type=int, help="CPU threads that torch may use (torch's choice)")


def run(args: argparse.Namespace) -> int:
    """Exit code 0; 2 with one sentence where the input cannot be trained on."""
    import torch

    from trail.bench.workload import PromptFileError
    from trail.predict.fingerprint import ModelError
    from trail.predict.training.recipes import RECIPES, with_encoder
    from trail.serving.setup import SetupError
    from trail.training.recording import RecordingError
    from trail.training.train.job import train

    console = Console()
    if args.recipe not in RECIPES:
        return _refuse(f"--recipe {args.recipe}: choose from {', '.join(RECIPES)}")
    if args.device != "cpu" and not torch.cuda.is_available():
        return _refuse(f"--device {args.device}: torch finds no GPU here; train with --device cpu")
    if args.threads:
        torch.set_num_threads(args.threads)
    recipe = RECIPES[args.recipe]
    if args.bins is not None:
        recipe = replace(recipe, k=args.bins)
    if args.epochs is not None:
        recipe = replace(recipe, probe=replace(recipe.probe, epochs=args.epochs))
    if args.held_out is not None:
        recipe = replace(recipe, held_out=args.held_out)
    if args.encoder is not None and recipe.prompt is not None:
        recipe = replace(recipe, prompt=with_encoder(recipe.prompt, args.encoder))
    if args.no_prompt:
        recipe = replace(recipe, prompt=None)
    try:
        corpus, served = _training_data(args)
        beside = Path(served.model_id) / TOKENIZER_FILE
        tokenizer = args.tokenizer or (beside if beside.is_file() else None)
        corpus = replace(corpus, model_tokenizer=tokenizer)
        with shown() as stages:
            manifest = train(
                corpus, served, recipe, args.out, seed=args.seed, stages=stages, device=args.device
            )
    except (
        RecordingError,
        PromptFileError,
        SetupError,
        ModelError,
        ArtefactError,
        ValueError,
        OSError,
    ) as error:
        return _refuse(str(error))
    show(console, manifest)
    console.print(f"written: {args.out}; look closer with `trail evaluate` and `trail inspect {args.out}`")
    return 0


def _training_data(args: argparse.Namespace) -> "tuple[Corpus, ServedModel]":
    from trail.training.recording import Recording
    from trail.training.train.job import ServedModel, recorded_corpus
    from trail.training.train.lengths import read_lengths

    if not args.recording.is_file():
        recording = Recording.open(args.recording)
        layers = _layers(args.layers, recording.layers)
        return recorded_corpus(recording, layers), ServedModel.of_recording(recording)
    if args.model is None:
        raise ValueError("a file of lengths says nothing of the model: give --model DIRECTORY")
    if args.layers:
        raise ValueError("a file of lengths has no layers: leave out --layers, or give a recording")
    served = ServedModel.of_directory(args.model)
    return read_lengths(args.recording, served.description.architecture, args.model).corpus, served


def show(console: Console, manifest: Manifest) -> None:
    """The layers tried and the errors on held-out prompts, in tokens."""
    trials = manifest.metrics.get("layer_trial_mae_refined_tokens") or {}
    if trials:
        best = max(trials.values())
        table = Table(title="mean absolute error of a short training, by layer")
        table.add_column("layer", justify="right")
        table.add_column("tokens", justify="right")
        table.add_column("")
        for layer, mae in trials.items():
            kept = "  kept" if int(layer) == manifest.layer else ""
            table.add_row(layer, f"{mae:.1f}", "#" * round(30 * mae / best) + kept)
        console.print(table)
    held_out = manifest.metrics["held_out"]
    table = Table(
        title=f"error on {held_out.get('requests', 0):.0f} held-out answers, mean over decode steps"
    )
    table.add_column("predictor")
    table.add_column("tokens", justify="right")
    for name, title in (
        ("constant", "constant"),
        ("prompt", "prompt, counted down"),
        ("raw", "probe, each step alone"),
        ("refined", "probe, followed"),
    ):
        if f"mae_{name}_tokens" in held_out:
            table.add_row(title, f"{held_out[f'mae_{name}_tokens']:.1f}")
    console.print(table)


def _layers(text: str, recorded: tuple[int, ...]) -> tuple[int, ...]:
    if not text:
        return recorded
    try:
        wanted = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        raise ValueError(f"--layers {text}: give layer numbers separated by commas") from None
    if missing := [layer for layer in wanted if layer not in recorded]:
        raise ValueError(
            f"layer {missing[0]} was not recorded, these were: {', '.join(map(str, recorded))}; choose one of"
            " them or record again with --layers"
        )
    return wanted


def _refuse(reason: str) -> int:
    print(f"trail train: {reason}", file=sys.stderr)
    return 2
