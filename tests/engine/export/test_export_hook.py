"""The forward-hook fallback: what it captures, eager and compiled, and which models it refuses."""

import pytest
import torch
from torch import nn

from trail.engine.export.fallback_hook import DecoderLayersError, capture, decoder_layers, install

TOKENS, HIDDEN = 6, 8


class Layer(nn.Module):
    """A decoder layer in vLLM's style: the residual travels beside the hidden states, or does not."""

    def __init__(self, factor: float, residual: bool) -> None:
        super().__init__()
        self.factor, self.residual = factor, residual

    def forward(
        self, hidden: torch.Tensor, residual: torch.Tensor | None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        if not self.residual:
            return hidden * self.factor
        total = hidden if residual is None else hidden + residual
        return total * self.factor, total


class Model(nn.Module):
    """Three decoder layers, and a shorter list that is not the decoder."""

    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Identity()])
        self.layers = nn.ModuleList([Layer(f, residual) for f in (2.0, 3.0, 5.0)])

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        residual = None
        for layer in self.layers:
            output = layer(hidden, residual)
            hidden, residual = output if isinstance(output, tuple) else (output, None)
        return hidden if residual is None else hidden + residual


def installed(model: nn.Module, layers: list[int]) -> list[torch.Tensor]:
    return install(
        model, layers, max_tokens=16, hidden_size=HIDDEN, dtype=torch.float32, device=torch.device("cpu")
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_captures_the_output_with_its_residual(compiled: bool) -> None:
    model = Model(residual=True)
    first, second = installed(model, [1, 2])
    run = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
    for tokens in (TOKENS, 3):
        hidden = torch.randn(tokens, HIDDEN)
        assert torch.equal(run(hidden), model(hidden))
        assert torch.allclose(first[:tokens], 3 * hidden)
        assert torch.allclose(second[:tokens], 12 * hidden)


def test_captures_the_output_of_a_layer_without_residual() -> None:
    model = Model(residual=False)
    (buffer,) = installed(model, [2])
    hidden = torch.randn(TOKENS, HIDDEN)
    model(hidden)
    assert torch.allclose(buffer[:TOKENS], 6 * hidden)
    assert not buffer[TOKENS:].any()


def test_the_buffer_is_no_weight_of_the_model() -> None:
    model = Model(residual=True)
    installed(model, [1])
    assert not model.state_dict()


def test_the_registered_operator_keeps_torchs_contract() -> None:
    hidden = torch.randn(TOKENS, HIDDEN)
    for residual in (None, torch.randn(TOKENS, HIDDEN)):
        torch.library.opcheck(capture, (hidden, residual, torch.zeros(16, HIDDEN)))


def test_finds_the_decoder_and_not_the_vision_tower() -> None:
    model = nn.Module()
    model.vision = nn.Module()
    model.vision.encoder = nn.Module()
    model.vision.encoder.layers = nn.ModuleList([nn.Identity() for _ in range(9)])
    model.language_model = Model(residual=True)
    assert decoder_layers(model) is model.language_model.layers


@pytest.mark.parametrize("layer", [0, 3])
def test_a_layer_without_a_decoder_layer_in_front_is_refused(layer: int) -> None:
    with pytest.raises(DecoderLayersError, match=rf"layers 1 to 2 .* not \[{layer}\]"):
        installed(Model(residual=True), [layer])


def test_a_model_without_decoder_layers_is_refused() -> None:
    with pytest.raises(DecoderLayersError, match="no list of decoder layers"):
        installed(nn.Linear(2, 2), [1])
