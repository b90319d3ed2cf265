"""From a data set's prompts to the token ids that the model is given."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from trail.bench.workload import PromptFileError
from trail.serving.setup import SetupError
from trail.training.profile.data import DataPrompt
from trail.training.recording.prompts import TokenPrompt

_BATCH = 1000


def tokenised(
    prompts: Sequence[DataPrompt], path: Path, model_dir: Path, vocab_size: int, *, trust_remote_code: bool
) -> list[TokenPrompt]:
    """Token ids of `prompts`, read from `path`; the model's tokenizer is loaded where it is needed.

    Chats are written with the tokenizer's chat template, or as their messages one after another where it has
    none. Raises SetupError without a usable tokenizer, PromptFileError naming the line of a prompt that the
    model cannot take.
    """
    tokenizer = None
    if any(prompt.token_ids is None for prompt in prompts):
        tokenizer = _load(model_dir, trust_remote_code=trust_remote_code)
    out = []
    for begin in range(0, len(prompts), _BATCH):
        chunk = prompts[begin : begin + _BATCH]
        for prompt, ids in zip(chunk, _encoded(chunk, path, tokenizer), strict=True):
            where = f"prompts {path}, line {prompt.line}"
            if not ids:
                raise PromptFileError(f"{where}: the prompt has no tokens; remove the line")
            if max(ids) >= vocab_size:
                raise PromptFileError(
                    f"{where}: token {max(ids)} is outside the model's vocabulary of {vocab_size}; give the"
                    " token ids of this model, or text"
                )
            out.append(TokenPrompt(tuple(ids), prompt.kind))
    return out


def within_context(prompts: Sequence[TokenPrompt], max_model_len: int) -> list[TokenPrompt]:
    """Prompts that leave room for a token of output."""
    return [prompt for prompt in prompts if len(prompt.token_ids) < max_model_len]


def _load(model_dir: Path, *, trust_remote_code: bool) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(model_dir, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers has no common error for a bad tokenizer
        cause = " ".join(str(error).split())
        raise SetupError(
            f"the tokenizer of {model_dir} cannot be loaded ({cause}); put its files there, or give prompts"
            " as prompt_token_ids"
        ) from error


def _encoded(prompts: Sequence[DataPrompt], path: Path, tokenizer: Any) -> Iterator[Sequence[int]]:
    """Token ids of each prompt; texts of a kind go through the tokenizer together."""
    # A chat template writes the marks that begin a text, plain text gets them from the tokenizer.
    templated = tokenizer is not None and bool(tokenizer.chat_template)
    chats = {
        i: _chat_text(prompt, path, tokenizer, templated=templated)
        for i, prompt in enumerate(prompts)
        if prompt.messages is not None
    }
    texts = {i: prompt.text for i, prompt in enumerate(prompts) if prompt.text is not None}
    found: dict[int, Sequence[int]] = {
        i: p.token_ids for i, p in enumerate(prompts) if p.token_ids is not None
    }
    for group, marks in ((chats, not templated), (texts, True)):
        if group:
            ids = tokenizer(list(group.values()), add_special_tokens=marks)["input_ids"]
            found.update(zip(group, ids, strict=True))
    return (found[i] for i in range(len(prompts)))


def _chat_text(prompt: DataPrompt, path: Path, tokenizer: Any, *, templated: bool) -> str:
    messages = list(prompt.messages or ())
    if not templated:
        return "\n\n".join(message["content"] for message in messages if message["content"])
    try:
        text = tokenizer.apply_chat_template(
            messages, tools=prompt.tools, add_generation_prompt=True, tokenize=False
        )
    except Exception as error:  # templates raise what they like
        cause = " ".join(str(error).split())
        raise PromptFileError(
            f"prompts {path}, line {prompt.line}: the model's chat template refuses it ({cause}); remove the"
            " line, or write it as a plain prompt"
        ) from error
    return str(text)
