"""Shapes of the prompt predictor's encoder. Apart from it, because transformers takes seconds to import."""

from dataclasses import dataclass


@dataclass(frozen=True)
class EncoderSize:
    """Shape of the encoder. `max_tokens` is what is read of a prompt: its first and last halves."""

    layers: int = 2
    hidden_size: int = 128
    heads: int = 4
    intermediate_size: int = 256
    max_tokens: int = 256


BASE = EncoderSize()
SMALL = EncoderSize(layers=1, hidden_size=64, heads=2, intermediate_size=128)
"""A quarter of the time of `BASE` at a somewhat larger error: for sidecars that share few cores with vLLM."""

SIZES = {"base": BASE, "small": SMALL}
