"""The probe: a small classifier from one layer's hidden state to bins of remaining length.

TRAIL (arXiv 2410.01035): Linear(H, 512) -> ReLU -> Linear(512, k) -> softmax. A probe with position inputs
also reads how many tokens the request has generated and how long its prompt is, which hidden states only
hint at.
"""

import copy
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from trail.predict.bins import Bins
from trail.predict.first_layer import FirstLayer, Float32Layer, fastest_layer, make_layer

FASTEST = "fastest"
MEASURED_FROM = 1024
"""Hidden size below which the first layer costs too little for a choice of its arithmetic."""

HIDDEN_UNITS = 512

WEIGHT_NAMES = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
POSITION_WEIGHT = "position.weight"
POSITION_INPUTS = 4

_SCALE = 1024.0


def position_inputs(ages: npt.ArrayLike, prompt_tokens: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """What a probe sees of a position, float32 [n, POSITION_INPUTS], from two counts of tokens [n]."""
    age, prompt = np.asarray(ages, dtype=np.float32), np.asarray(prompt_tokens, dtype=np.float32)
    result = np.empty((*age.shape, POSITION_INPUTS), dtype=np.float32)
    np.log1p(age, out=result[..., 0])
    np.log1p(prompt, out=result[..., 1])
    np.divide(age, _SCALE, out=result[..., 2])
    np.divide(age + prompt, _SCALE, out=result[..., 3])
    return result


class Probe:
    """Inference on CPU, one batch a call; in float32 unless `prepared` otherwise.

    `weights` maps WEIGHT_NAMES to float arrays: hidden.weight [units, H], hidden.bias [units],
    output.weight [k, units], output.bias [k]; POSITION_WEIGHT [units, POSITION_INPUTS] where position is
    read. `layer` counts as Hugging Face `hidden_states[layer]`. Raises ValueError for missing weights,
    shapes that do not fit together, or non-finite values.
    """

    def __init__(self, weights: Mapping[str, npt.NDArray[np.floating]], bins: Bins, layer: int) -> None:
        self.bins = bins
        self.layer = layer
        self.weights = _checked(weights, bins)
        self.hidden_size = int(self.weights["hidden.weight"].shape[1])
        tensors = {name: torch.from_numpy(array.copy()) for name, array in self.weights.items()}
        self._hidden = tensors["hidden.weight"], tensors["hidden.bias"]
        self._output = tensors["output.weight"], tensors["output.bias"]
        self._position = tensors.get(POSITION_WEIGHT)
        self._first: FirstLayer = Float32Layer(*self._hidden)
        self.arithmetic: Mapping[int, str] = {1: "float32"}

    @property
    def reads_position(self) -> bool:
        """Whether ages and prompt lengths are inputs."""
        return self._position is not None

    @classmethod
    def untrained(
        cls,
        hidden_size: int,
        bins: Bins,
        layer: int,
        *,
        units: int = HIDDEN_UNITS,
        position: bool = False,
        seed: int = 0,
    ) -> "Probe":
        """Random weights as torch initialises linear layers: uniform within 1 / sqrt(inputs)."""
        rng = np.random.default_rng(seed)

        def linear(outputs: int, inputs: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            bound = 1 / np.sqrt(inputs)
            weight = rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
            return weight, rng.uniform(-bound, bound, outputs).astype(np.float32)

        arrays = (*linear(units, hidden_size), *linear(bins.k, units))
        weights = dict(zip(WEIGHT_NAMES, arrays, strict=True))
        if position:
            weights[POSITION_WEIGHT] = linear(units, POSITION_INPUTS)[0]
        return cls(weights, bins, layer)

    def prepared(self, arithmetic: str = FASTEST) -> "Probe":
        """This probe for serving, its first layer computed in one of `first_layer.ARITHMETICS`.

        FASTEST measures which suits batches of which size, with torch's present number of threads;
        `arithmetic` of the result says what it found: by name, from so many rows on. Probabilities move by
        little (tests state the bounds), and by which other rows are in the batch not at all, save for how
        many. Raises ValueError for another name, RuntimeError where this torch cannot do it.
        """
        probe = copy.copy(self)
        if arithmetic == FASTEST:
            fastest = fastest_layer(*self._hidden)
            probe._first, probe.arithmetic = fastest, fastest.chosen
        else:
            probe._first, probe.arithmetic = make_layer(arithmetic, *self._hidden), {1: arithmetic}
        return probe

    def predict(
        self,
        vectors: npt.NDArray[np.floating],
        ages: npt.ArrayLike | None = None,
        prompt_tokens: npt.ArrayLike | None = None,
    ) -> npt.NDArray[np.float32]:
        """Probabilities float32 [n, k] of the remaining length's bin for hidden states [n, H].

        `ages` and `prompt_tokens` [n] are needed by a probe that reads position, and ignored by another.
        A row that holds NaN gives a row of NaN, which the refinement takes for no evidence.
        Raises ValueError when the vectors have another width than the probe was trained for.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.hidden_size:
            raise ValueError(
                f"the probe was trained on hidden size {self.hidden_size}, the vectors have shape"
                f" {list(vectors.shape)}; use the predictor that was trained for the model being served"
            )
        batch = np.ascontiguousarray(vectors, dtype=np.float32)
        if not batch.flags.writeable:  # torch warns about read-only memory, a mapped file for one
            batch = batch.copy()
        if not len(batch):
            return np.empty((0, self.bins.k), dtype=np.float32)
        with torch.inference_mode():
            units = self._first(torch.from_numpy(batch))
            if self._position is not None:
                if ages is None or prompt_tokens is None:
                    raise ValueError("this probe reads position: give ages and prompt_tokens")
                units.addmm_(torch.from_numpy(position_inputs(ages, prompt_tokens)), self._position.t())
            probabilities = F.softmax(F.linear(units.relu_(), *self._output), dim=1)
        result: npt.NDArray[np.float32] = probabilities.numpy()
        return result


def _checked(
    weights: Mapping[str, npt.NDArray[np.floating]], bins: Bins
) -> dict[str, npt.NDArray[np.float32]]:
    missing = [name for name in WEIGHT_NAMES if name not in weights]
    if missing:
        raise ValueError(f"the probe's weights lack {', '.join(missing)}")
    names = (*WEIGHT_NAMES, *([POSITION_WEIGHT] if POSITION_WEIGHT in weights else []))
    arrays = {name: np.ascontiguousarray(weights[name], dtype=np.float32) for name in names}
    if arrays["hidden.weight"].ndim != 2 or 0 in arrays["hidden.weight"].shape:
        raise ValueError(f"hidden.weight must be [units, H], got {list(arrays['hidden.weight'].shape)}")
    units = arrays["hidden.weight"].shape[0]
    expected = {
        "hidden.bias": (units,),
        "output.weight": (bins.k, units),
        "output.bias": (bins.k,),
        POSITION_WEIGHT: (units, POSITION_INPUTS),
    }
    for name, shape in expected.items():
        if name in arrays and arrays[name].shape != shape:
            raise ValueError(
                f"{name} has shape {list(arrays[name].shape)}, {list(shape)} fits"
                f" {units} hidden units and {bins.k} bins"
            )
    for name, array in arrays.items():
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} holds NaN or infinity")
    return arrays
