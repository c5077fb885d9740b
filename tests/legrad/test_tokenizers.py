"""Tokenizers from folders: what is passed on, and what is refused."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from open_clip import SimpleTokenizer

from legrad import from_open_clip
from legrad.models.tokenizers import (
    check_tokenizer,
    make_tokenizer,
    obstacle,
    tokenizer_digest,
)
from legrad.models.vision_language import cut_texts
from tests.builders import CONTEXT, tiny_clip

SIGLIP, CLIP = "ViT-B-16-SigLIP2", "ViT-B-32"


class WordTokenizer:
    """As much of a transformers tokenizer as open_clip's wrapper uses: a word a line of a file."""

    def __init__(self, words: list[str]) -> None:
        self.words = words

    @classmethod
    def from_pretrained(cls, source: str, **_: Any) -> "WordTokenizer":
        file = Path(source) / "words.txt"
        if not file.exists():
            raise OSError(f"We couldn't connect to 'https://huggingface.co' for {source}\nmore")
        return cls(file.read_text().split())

    def __call__(self, texts: list[str] | str, *, max_length: int | None = None, **_: Any) -> Any:
        if isinstance(texts, str):  # asked for its length
            return {"input_ids": [1 + self.words.index(word) for word in texts.split()]}
        rows = [[1 + self.words.index(word) for word in text.split()] for text in texts]
        ids = torch.tensor([(row + [0] * max_length)[:max_length] for row in rows])
        return type("Encoding", (), {"input_ids": ids})()


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the package, which no other test needs."""
    module = ModuleType("transformers")
    module.__spec__ = ModuleSpec("transformers", None)
    module.AutoTokenizer = WordTokenizer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", module)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens" / "words.txt").write_text("a dog snow")
    return tmp_path / "tokens"


def test_a_folder_with_the_models_own_settings(transformers: None, folder: Path) -> None:
    tokens = make_tokenizer(SIGLIP, str(folder))(["A dog!", "snow"])
    assert tokens.shape == (2, 64)  # the context of the model's config
    assert tokens[:, :3].tolist() == [[1, 2, 0], [3, 0, 0]]  # its cleaning: lower case, no marks


def test_no_connection_says_what_to_do(transformers: None) -> None:
    words = "We couldn't connect.*hf download timm/ViT-B-16-SigLIP2 .*--local-dir.*tokenizer="
    with pytest.raises(ValueError, match=words) as error:
        make_tokenizer(SIGLIP)
    assert "\n" not in str(error.value)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("legrad.models.tokenizers.find_spec", lambda name: None)
    assert obstacle(CLIP) is None
    assert "pip install transformers" in str(obstacle(SIGLIP))
    with pytest.raises(ValueError, match="pip install transformers"):
        make_tokenizer(SIGLIP)
    assert make_tokenizer(CLIP)(["a dog"]).shape == (1, 77)


def test_what_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'ViT-B-32' has its own"):
        check_tokenizer(CLIP, "google/siglip")
    with pytest.raises(ValueError, match="no such folder"):
        check_tokenizer(SIGLIP, str(tmp_path / "nowhere"))
    check_tokenizer(SIGLIP, "google/siglip2-base-patch16-224")
    check_tokenizer(SIGLIP, None)


def test_digest_is_of_the_files_not_of_the_place(folder: Path, tmp_path: Path) -> None:
    first = tokenizer_digest(str(folder))
    moved = folder.rename(tmp_path / "elsewhere")
    assert tokenizer_digest(str(moved)) == first
    (moved / "words.txt").write_text("a dog rain")
    assert tokenizer_digest(str(moved)) != first
    assert tokenizer_digest("google/siglip") == "google/siglip"
    assert tokenizer_digest(None) is None


@pytest.mark.parametrize("words", [3, 75, 76, 200])
def test_a_text_that_the_model_cannot_read_whole(words: int) -> None:
    """Start and end of the text are two of CLIP's 77 tokens."""
    long = " ".join(["dog"] * words)
    cut = cut_texts(make_tokenizer(CLIP), ["a dog", long, "."], 77)
    assert cut == ([long] if words > 75 else [])


def test_a_text_of_multi_byte_letters_is_counted_by_tokens() -> None:
    assert cut_texts(make_tokenizer(CLIP), ["\u00e9" * 60], 77) == []


def test_a_long_text_for_a_tokenizer_from_hugging_face(transformers: None, folder: Path) -> None:
    texts = [" ".join(["dog"] * count) for count in (64, 65)]
    assert cut_texts(make_tokenizer(SIGLIP, str(folder)), texts, 64) == texts[1:]


def test_encoding_warns_with_the_text() -> None:
    model = from_open_clip(tiny_clip(0), tokenizer=SimpleTokenizer(context_length=CONTEXT))
    text = "a watermark at the lower right corner of the picture"
    tokens = model.tokenizer([text])
    assert tokens.shape == (1, CONTEXT)
    with pytest.warns(UserWarning, match=f"reads {CONTEXT} tokens.*{text}"):
        model._warn_cut(["a dog", text], CONTEXT)


def test_a_tokenizer_of_an_unknown_kind_is_not_judged() -> None:
    assert cut_texts(lambda texts: torch.zeros(len(texts), 3), ["dog " * 100], 3) == []
