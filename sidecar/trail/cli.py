"""`trail ...`: one word per command, each wired to the module that carries it out."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

from trail import __version__


@dataclass(frozen=True)
class Command:
    """A subcommand. Its module in `trail.commands`, imported when used, has `configure(parser)` and
    `run(args) -> int`."""

    name: str
    module: str
    summary: str
    passes_on: bool = False
    """Arguments it does not know are vLLM's and are kept in `args.vllm_args`."""

    def load(self) -> ModuleType:
        """Imports its module."""
        return importlib.import_module(f"trail.commands.{self.module}")


COMMANDS = (
    Command("serve", "serve", "serve a model with vLLM and TRAIL on this machine", passes_on=True),
    Command("sidecar", "sidecar", "run the sidecar process alone"),
    Command("bench", "bench", "compare scheduling policies on one workload", passes_on=True),
    Command("profile", "profile", "record hidden states to train a predictor on", passes_on=True),
    Command("train", "train", "train a predictor from a recording"),
    Command("evaluate", "evaluate", "say how good a predictor is, and how good one could be"),
    Command("simulate", "simulate", "compare policies in a simulated engine"),
    Command("fit-steps", "fit_steps", "fit a step-time model to what trail bench saw"),
    Command("top", "top.command", "watch engines and requests in the terminal"),
    Command("shadow-report", "shadow_report", "say what a policy would gain, from a decision log"),
    Command("plan", "plan", "what a policy is worth at your lengths and load, by theory"),
    Command("status", "cluster.status", "show TRAIL on the current cluster"),
    Command("enable", "cluster.enable", "switch TRAIL on for a Deployment or StatefulSet"),
    Command("disable", "cluster.disable", "switch it off again"),
    Command("c", "cluster.c", "show or set c of a TrailPolicy"),
    Command("explain", "explain", "the life of one request, with reasons"),
    Command("explain-injection", "cluster.explain_injection", "say why a pod was injected or not"),
    Command("inspect", "inspect", "show and check a predictor"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in `argv` (by default the process's own). Returns its exit code; 2 for bad usage."""
    words = list(sys.argv[1:] if argv is None else argv)
    top = argparse.ArgumentParser(
        prog="trail", description="Scheduling sidecar for vLLM.", allow_abbrev=False
    )
    top.add_argument("--version", action="version", version=f"trail {__version__}")
    choices = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        choices.add_parser(command.name, help=command.summary, add_help=False)
    name = top.parse_known_args(words[:1])[0].command
    command = next(c for c in COMMANDS if c.name == name)
    module = command.load()
    # Abbreviated options are off: --max would be ours or vLLM's depending on what exists.
    parser = argparse.ArgumentParser(prog=f"trail {name}", description=command.summary, allow_abbrev=False)
    module.configure(parser)
    if command.passes_on:
        args, extra = parser.parse_known_args(words[1:])
        args.vllm_args = [word for word in extra if word != "--"]
    else:
        args = parser.parse_args(words[1:])
    return int(module.run(args))
