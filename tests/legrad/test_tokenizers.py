"""Tokenizers from folders: what is passed on, and what is refused."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from legrad.models.tokenizers import check_tokenizer, make_tokenizer, obstacle, tokenizer_digest

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

    def __call__(self, texts: list[str], *, max_length: int, **_: Any) -> Any:
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
