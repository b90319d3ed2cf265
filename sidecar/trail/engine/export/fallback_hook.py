"""Hidden states of models without the auxiliary-hidden-state interface: a hook on the decoder layer.

The hook calls a registered custom op, so that it survives torch.compile and CUDA graphs: the op's only
effect is to copy into a static buffer, which the worker reads after the step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class DecoderLayersError(ValueError):
    """The model's decoder layers were not found, or do not include the layer asked for."""


@torch.library.custom_op("trail::capture", mutates_args=("buffer",))
def capture(hidden: torch.Tensor, residual: torch.Tensor | None, buffer: torch.Tensor) -> None:
    """Copy `hidden` (+ `residual`) [tokens, hidden] into the first rows of `buffer` [max_tokens, hidden]."""
    target = buffer[: hidden.shape[0]]
    if residual is None:
        target.copy_(hidden)
    else:
        torch.add(hidden, residual, out=target)


@capture.register_fake
def _capture_traced(*_arguments: Any) -> None:
    """Tracing: nothing is returned."""


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The model's decoder layers: the largest ModuleList that lies on the path of its language model.

    Raises DecoderLayersError when there is none.
    """
    named = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    layers = [
        module
        for name, module in named
        if name.rsplit(".", 1)[-1] in ("layers", "h", "blocks")
        and ".encoder." not in f".{name}."
        and len(module)
    ]
    if not layers:
        raise DecoderLayersError(
            f"{type(model).__name__} has no list of decoder layers that TRAIL recognises"
        )
    return max(layers, key=len)


def install(
    model: nn.Module,
    layers: Sequence[int],
    *,
    max_tokens: int,
    hidden_size: int,
    dtype: torch.dtype,
    device: Any,
) -> list[torch.Tensor]:
    """Hook the decoder layers behind `hidden_states[k]` for each k of `layers`; returns their buffers.

    Call it before the model's first run, which compiles it. Layer 0 is the embedding, which has no decoder
    layer in front. Raises DecoderLayersError.
    """
    decoder = decoder_layers(model)
    outside = [k for k in layers if not 1 <= k < len(decoder)]
    if outside:
        raise DecoderLayersError(
            f"{type(model).__name__} takes layers 1 to {len(decoder) - 1} without the auxiliary-hidden-state "
            f"interface, not {outside}"
        )
    buffers = []
    for k in layers:
        buffer = torch.zeros((max_tokens, hidden_size), dtype=dtype, device=device)
        layer = decoder[k - 1]
        layer.register_buffer("trail_capture", buffer, persistent=False)
        layer.register_forward_hook(_hook)
        buffers.append(buffer)
    return buffers


def _hook(module: nn.Module, _inputs: Any, output: Any) -> None:
    hidden, residual = (output[0], output[1]) if isinstance(output, tuple) else (output, None)
    torch.ops.trail.capture(hidden, residual, module.trail_capture)
