"""The probe: a small classifier from one layer's hidden state to bins of remaining length.

TRAIL (arXiv 2410.01035): Linear(H, 512) -> ReLU -> Linear(512, k) -> softmax.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from trail.predict.bins import Bins

HIDDEN_UNITS = 512

WEIGHT_NAMES = ("hidden.weight", "hidden.bias", "output.weight", "output.bias")


class Probe:
    """Inference on CPU in float32, one batch a call.

    `weights` maps WEIGHT_NAMES to float arrays: hidden.weight [units, H], hidden.bias [units],
    output.weight [k, units], output.bias [k]. `layer` counts as Hugging Face `hidden_states[layer]`.
    Raises ValueError for missing weights, shapes that do not fit together, or non-finite values.
    """

    def __init__(self, weights: Mapping[str, npt.NDArray[np.floating]], bins: Bins, layer: int) -> None:
        self.bins = bins
        self.layer = layer
        self.weights = _checked(weights, bins)
        self.hidden_size = int(self.weights["hidden.weight"].shape[1])
        self._tensors = [torch.from_numpy(self.weights[name].copy()) for name in WEIGHT_NAMES]

    @classmethod
    def untrained(
        cls, hidden_size: int, bins: Bins, layer: int, *, units: int = HIDDEN_UNITS, seed: int = 0
    ) -> "Probe":
        """Random weights as torch initialises linear layers: uniform within 1 / sqrt(inputs)."""
        rng = np.random.default_rng(seed)

        def linear(outputs: int, inputs: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
            bound = 1 / np.sqrt(inputs)
            weight = rng.uniform(-bound, bound, (outputs, inputs)).astype(np.float32)
            return weight, rng.uniform(-bound, bound, outputs).astype(np.float32)

        arrays = (*linear(units, hidden_size), *linear(bins.k, units))
        return cls(dict(zip(WEIGHT_NAMES, arrays, strict=True)), bins, layer)

    def predict(self, vectors: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Probabilities float32 [n, k] of the remaining length's bin for hidden states [n, H].

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
        hidden_weight, hidden_bias, output_weight, output_bias = self._tensors
        with torch.inference_mode():
            units = F.linear(torch.from_numpy(batch), hidden_weight, hidden_bias).relu_()
            probabilities = F.softmax(F.linear(units, output_weight, output_bias), dim=1)
        result: npt.NDArray[np.float32] = probabilities.numpy()
        return result


def _checked(
    weights: Mapping[str, npt.NDArray[np.floating]], bins: Bins
) -> dict[str, npt.NDArray[np.float32]]:
    missing = [name for name in WEIGHT_NAMES if name not in weights]
    if missing:
        raise ValueError(f"the probe's weights lack {', '.join(missing)}")
    arrays = {name: np.ascontiguousarray(weights[name], dtype=np.float32) for name in WEIGHT_NAMES}
    if arrays["hidden.weight"].ndim != 2 or 0 in arrays["hidden.weight"].shape:
        raise ValueError(f"hidden.weight must be [units, H], got {list(arrays['hidden.weight'].shape)}")
    units = arrays["hidden.weight"].shape[0]
    expected = {"hidden.bias": (units,), "output.weight": (bins.k, units), "output.bias": (bins.k,)}
    for name, shape in expected.items():
        if arrays[name].shape != shape:
            raise ValueError(
                f"{name} has shape {list(arrays[name].shape)}, {list(shape)} fits"
                f" {units} hidden units and {bins.k} bins"
            )
    for name, array in arrays.items():
        if not np.all(np.isfinite(array)):
            raise ValueError(f"{name} holds NaN or infinity")
    return arrays
