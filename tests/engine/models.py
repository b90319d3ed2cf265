"""Tiny random-weight models, made by transformers from a seed at test time."""

import functools
import json
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from safetensors.torch import save_file

VOCABULARY = 256
CONTEXT = 512
HIDDEN = 64
LAYERS = 4

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": HIDDEN,
    "intermediate_size": 128,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "head_dim": 32,
    "tie_word_embeddings": False,
}
_GPT2 = {
    "vocab_size": VOCABULARY,
    "n_embd": HIDDEN,
    "n_layer": LAYERS,
    "n_head": 2,
    "n_positions": CONTEXT,
    "n_inner": 128,
}
_KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", _COMMON),
    "mistral": ("MistralConfig", "MistralForCausalLM", {**_COMMON, "sliding_window": None}),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", _COMMON),
    "gemma3": (
        "Gemma3TextConfig",
        "Gemma3ForCausalLM",
        {**_COMMON, "sliding_window": 32, "query_pre_attn_scalar": 32, "tie_word_embeddings": True},
    ),
    "qwen3_moe": (
        "Qwen3MoeConfig",
        "Qwen3MoeForCausalLM",
        {**_COMMON, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    ),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", _GPT2),
}


def build(kind: str, directory: Path, seed: int = 0) -> Path:
    """Write a model of `kind` with a tokenizer of one token a byte, in float32; returns the directory.

    Weights are drawn wide enough (standard deviation 0.08) that neighbouring layers differ clearly.
    """
    config_name, model_name, settings = _KINDS[kind]
    config = getattr(transformers, config_name)(
        **settings, initializer_range=0.08, bos_token_id=0, eos_token_id=1, pad_token_id=0
    )
    torch.manual_seed(seed)
    getattr(transformers, model_name)(config).to(torch.float32).save_pretrained(directory)
    _tokenizer().save_pretrained(directory)
    return directory


def _tokenizer() -> transformers.PreTrainedTokenizerFast:
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())[: VOCABULARY - 2]
    vocabulary = {"<s>": 0, "</s>": 1, **{symbol: i for i, symbol in enumerate(alphabet, start=2)}}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",  # noqa: S106 - a token of the vocabulary
        eos_token="</s>",  # noqa: S106 - a token of the vocabulary
        pad_token="<s>",  # noqa: S106 - a token of the vocabulary
    )


def decode(directory: Path, token_ids: list[int]) -> str:
    """The text of `token_ids`, without the tokens that begin and end a sequence."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    return str(tokenizer.decode(token_ids, skip_special_tokens=True))


def build_adapter(directory: Path, *, rank: int = 8, seed: int = 1) -> Path:
    """Write a random low-rank adapter for the attention of `build("llama")`, in PEFT's format."""
    generator = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(LAYERS):
        for module in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights[f"{name}.lora_A.weight"] = torch.randn((rank, HIDDEN), generator=generator) * 0.1
            weights[f"{name}.lora_B.weight"] = torch.randn((HIDDEN, rank), generator=generator) * 0.1
    directory.mkdir(parents=True, exist_ok=True)
    save_file(weights, directory / "adapter_model.safetensors")
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (directory / "adapter_config.json").write_text(json.dumps(settings))
    return directory


@functools.lru_cache(maxsize=4)
def _reference(directory: Path, adapter: Path | None) -> Any:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if adapter is not None:
        from safetensors.torch import load_file

        weights = load_file(adapter / "adapter_model.safetensors")
        parameters = dict(model.named_parameters())
        for name in [n for n in weights if n.endswith(".lora_A.weight")]:
            stem = name.removesuffix(".lora_A.weight")
            target = parameters[stem.removeprefix("base_model.model.") + ".weight"]
            target.data += weights[f"{stem}.lora_B.weight"] @ weights[name]
    return model


def hidden_states(directory: Path, token_ids: list[int], adapter: Path | None = None) -> torch.Tensor:
    """Hugging Face's hidden states for one sequence: float32 [layers + 1, tokens, hidden].

    The adapter is merged into the weights; its `lora_alpha` equals its rank, so the factor is 1.
    """
    with torch.inference_mode():
        output = _reference(directory, adapter)(torch.tensor([token_ids]), output_hidden_states=True)
    return torch.stack(output.hidden_states)[:, 0]
