"""A pretrained encoder reads the prompt's text with its own tokenizer and comes back from disk the same."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

from trail.predict.bins import equal_bins
from trail.predict.prompt import PromptPredictor
from trail.predict.prompt_tokens import Retokenised, read_tokenizer
from trail.predict.training.prompt_training import PromptRecipe, train_prompt_predictor

BINS = equal_bins(4, 64.0)
WORD_OF_PADDING = "[PAD]"
WORDS = ["short", "long", "tell", "me", "a", "story"]


def word_tokenizer(first: list[str], words: list[str]) -> Tokenizer:
    vocabulary = {word: i for i, word in enumerate([*first, *words])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=first[-1]))
    tokenizer.pre_tokenizer = Whitespace()
    return tokenizer


@pytest.fixture(scope="module")
def model_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("model") / "tokenizer.json"
    word_tokenizer(["<unk>"], WORDS).save(str(file))
    return file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DistilBERT of random weights whose tokenizer orders the words the other way round."""
    directory = tmp_path_factory.mktemp("distilbert")
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=10, dim=32, hidden_dim=32, n_layers=1, n_heads=2, max_position_embeddings=8
    )
    DistilBertModel(config).save_pretrained(directory)
    tokenizer = word_tokenizer([WORD_OF_PADDING, "[CLS]", "[SEP]", "[UNK]"], WORDS[::-1])
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    fast.pad_token = WORD_OF_PADDING
    fast.save_pretrained(directory)
    return directory


def ids(*words: str) -> list[int]:
    return [1 + WORDS.index(word) for word in words]


def test_the_models_tokens_become_the_encoders_by_way_of_text(
    checkpoint: Path, model_tokenizer: Path
) -> None:
    predictor = PromptPredictor.pretrained(str(checkpoint), model_tokenizer, BINS)
    assert predictor.tokens.encode(ids("short", "story")).tolist() == [1, 9, 4, 2]
    assert predictor.tokens.encode([99, -1, *ids("me")]).tolist() == [1, 6, 2], "unknown ids are left out"
    assert predictor.tokens.encode([]).tolist() == [1, 2]
    long = predictor.tokens.encode(ids("short", *["me"] * 20, "long"))
    assert long.tolist() == [1, 9, 6, 6, 6, 6, 8, 2], "both ends of what does not fit"


def test_it_comes_back_from_disk_the_same(checkpoint: Path, model_tokenizer: Path, tmp_path: Path) -> None:
    predictor = PromptPredictor.pretrained(str(checkpoint), model_tokenizer, BINS)
    names = predictor.save(tmp_path / "prompt")
    assert sorted(names) == sorted(p.name for p in (tmp_path / "prompt").iterdir())
    again = PromptPredictor.read(tmp_path / "prompt", BINS)
    assert isinstance(again.tokens, Retokenised)
    prompts = [ids("short", "story"), ids("long"), [], ids(*["tell"] * 30)]
    np.testing.assert_array_equal(again.predict(prompts), predictor.predict(prompts))
    for prompt, row in zip(prompts, again.predict(prompts), strict=True):
        np.testing.assert_allclose(again.predict([prompt])[0], row, atol=1e-5)


def test_it_is_trained_like_one_from_random_weights(checkpoint: Path, model_tokenizer: Path) -> None:
    rng = np.random.default_rng(0)
    prompts = [
        ids(
            *rng.choice(WORDS[2:], rng.integers(0, 4)),
            "short" if i % 2 else "long",
            *rng.choice(WORDS[2:], 2),
        )
        for i in range(80)
    ]
    lengths = np.array([5 if i % 2 else 55 for i in range(80)])
    trained = train_prompt_predictor(
        prompts,
        lengths,
        np.zeros(80, dtype=np.bool_),
        bins=BINS,
        vocab_size=len(WORDS) + 1,
        model_tokenizer=model_tokenizer,
        recipe=PromptRecipe(encoder=str(checkpoint), epochs=60, batch_size=8, learning_rate=2e-3),
    )
    p = trained.predictor.predict([ids("tell", "me", "a", word, "story") for word in ("short", "long")])
    assert p[0, 0] > 0.9
    assert p[1, 3] > 0.9


def test_what_cannot_be_used_is_named(checkpoint: Path, model_tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="reads text: give the served model's tokenizer"):
        train_prompt_predictor(
            [[1]] * 4,
            np.ones(4),
            np.zeros(4, dtype=np.bool_),
            bins=BINS,
            vocab_size=7,
            recipe=PromptRecipe(encoder=str(checkpoint)),
        )
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json is no tokenizer"):
        read_tokenizer(tmp_path / "tokenizer.json")
    with pytest.raises(OSError, match="nothing-here"):
        PromptPredictor.pretrained(str(tmp_path / "nothing-here"), model_tokenizer, BINS)
