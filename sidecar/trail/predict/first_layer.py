"""The probe's first layer, nearly all of its work, in three arithmetics of which the fastest is measured.

A hidden state of 4,096 meets two million weights, so one row costs what reading them costs, and many rows
cost what multiplying costs. Which arithmetic is best depends on the CPU and on the number of rows:

    float32    the reference
    bfloat16   half the bytes, and several times the products where the CPU has AMX or AVX512-BF16
    int8       a quarter of the bytes, no faster products: for a few rows. Weights alone are put on levels, so
               that no row's scale depends on another row

Sums are float32 in all of them.
"""

import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

ARITHMETICS = ("float32", "bfloat16", "int8")
"""From the most exact to the least."""

BATCHES = (1, 2, 4, 8, 16, 64, 256)
"""Rows at which they are measured."""

WORTHWHILE = 0.9
"""A less exact one must take at most this share of the time of the more exact one."""

_ROUNDS = 6
_MOST = 127
_INT8_MULTIPLE = 64
_ROWS_IN_CACHE = 256
"""Rows rounded at a time: what was rounded is still in the cache when it is multiplied."""


class FirstLayer(Protocol):
    """A linear layer on CPU."""

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        """New float32 [n, units] for float32 [n, H], n at least 1; a row depends on its own vector alone."""
        ...


class Float32Layer:
    """As it was trained."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.linear(vectors, self._weight, self._bias)


class BFloat16Layer:
    """Weights, vectors and results rounded to 8 significant bits."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        self._weight, self._bias = _packed(weight.bfloat16()), bias.bfloat16()
        # A bias that shifts large inputs back is large itself: what its rounding lost is added afterwards.
        self._rest = bias - self._bias.float()

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        if len(vectors) <= _ROWS_IN_CACHE:
            return self._block(vectors)
        return torch.cat([self._block(block) for block in torch.split(vectors, _ROWS_IN_CACHE)])

    def _block(self, vectors: torch.Tensor) -> torch.Tensor:
        rounded = vectors.bfloat16()
        if self._weight.is_mkldnn:
            units = torch.ops.mkldnn._linear_pointwise(rounded, self._weight, self._bias, "none", [], "")
        else:
            units = F.linear(rounded, self._weight, self._bias)
        result: torch.Tensor = units.float().add_(self._rest)
        return result


class Int8Layer:
    """Weights rounded to 255 levels, vectors to bfloat16.

    Every input is first scaled to the same largest weight: standardised inputs that were folded into the
    weights differ by orders of magnitude, and the small ones would be rounded away. Raises RuntimeError where
    this torch cannot do it, and for sizes that its operator, which checks none, would read beyond.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        if any(size % _INT8_MULTIPLE for size in weight.shape):
            raise RuntimeError(
                f"int8 needs units and hidden size in multiples of {_INT8_MULTIPLE}, got {list(weight.shape)}"
            )
        largest = weight.abs().amax(dim=0)
        self._inputs = torch.where(largest > 0, largest, 1.0)
        even = weight / self._inputs
        # Rounded before they are used, so that weights stand on the very levels that are multiplied back.
        levels = (even.abs().amax(dim=1, keepdim=True).clamp(min=1e-30) / _MOST).bfloat16()
        self._weight = (even / levels.float()).round().clamp(-_MOST, _MOST).to(torch.int8)
        self._levels, self._bias = levels[:, 0].contiguous(), bias
        self(torch.zeros((1, weight.shape[1])))

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        scaled = (vectors * self._inputs).bfloat16()
        return torch._weight_int8pack_mm(scaled, self._weight, self._levels).float().add_(self._bias)


class FastestLayer:
    """Hands every batch to the layer that was fastest at batches of about its size.

    `layers` are by the arithmetic's name, the most exact first; `chosen` gives the name from so many rows on.
    """

    def __init__(self, layers: Mapping[str, FirstLayer], seconds: Mapping[str, Sequence[float]]) -> None:
        self.chosen = choose(seconds)
        self._from = list(self.chosen)
        self._layers = [layers[name] for name in self.chosen.values()]

    def __call__(self, vectors: torch.Tensor) -> torch.Tensor:
        return self._layers[bisect_right(self._from, len(vectors)) - 1](vectors)


def make_layer(arithmetic: str, weight: torch.Tensor, bias: torch.Tensor) -> FirstLayer:
    """The layer of `weight` float32 [units, H] and `bias` [units] in one of ARITHMETICS.

    Raises ValueError for another name and RuntimeError where this torch cannot do it.
    """
    kinds: dict[str, Callable[[torch.Tensor, torch.Tensor], FirstLayer]] = {
        "float32": Float32Layer,
        "bfloat16": BFloat16Layer,
        "int8": Int8Layer,
    }
    if arithmetic not in kinds:
        raise ValueError(f"the arithmetic is one of {', '.join(ARITHMETICS)}, got {arithmetic!r}")
    return kinds[arithmetic](weight, bias)


def fastest_layer(weight: torch.Tensor, bias: torch.Tensor) -> FastestLayer:
    """Measures what this torch has of ARITHMETICS with the present number of threads.

    Takes some hundred milliseconds at H = 4,096. The least of interleaved rounds is compared, so that other
    work on the machine delays the choice and does not turn it.
    """
    layers: dict[str, FirstLayer] = {}
    for name in ARITHMETICS:
        try:
            layers[name] = make_layer(name, weight, bias)
        except (RuntimeError, AttributeError):  # an operator that this CPU or version lacks
            continue
    seconds: dict[str, list[float]] = {name: [] for name in layers}
    with torch.inference_mode():
        for batch in BATCHES:
            vectors = torch.ones((batch, weight.shape[1]))
            least = dict.fromkeys(layers, float("inf"))
            for _ in range(_ROUNDS):
                for name, layer in layers.items():
                    begin = time.perf_counter()
                    layer(vectors)
                    least[name] = min(least[name], time.perf_counter() - begin)
            for name, took in least.items():
                seconds[name].append(took)
    return FastestLayer(layers, seconds)


def choose(seconds: Mapping[str, Sequence[float]]) -> dict[int, str]:
    """From how many rows on which arithmetic is taken, by its time at each of BATCHES; ascending, from 1.

    `seconds` has the most exact first: a less exact one is taken where it is worth while.
    """
    chosen: dict[int, str] = {}
    last = ""
    for i, batch in enumerate(BATCHES):
        best = next(iter(seconds))
        for name, took in seconds.items():
            if took[i] <= WORTHWHILE * seconds[best][i]:
                best = name
        if best != last:
            chosen[batch] = last = best
    return chosen


def _packed(weight: torch.Tensor) -> torch.Tensor:
    """The weight in oneDNN's own layout, as it is where this torch has none: then every call reorders it."""
    try:
        packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        torch.ops.mkldnn._linear_pointwise(weight[:1], packed, None, "none", [], "")
    except (RuntimeError, AttributeError, TypeError):
        return weight
    return packed
