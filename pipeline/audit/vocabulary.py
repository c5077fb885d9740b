"""The words that suspicions are measured against, and their directions in a model's text space.

Encoding a few hundred words takes seconds and the model, so their features are kept beside the run
under a name that depends on the weights and the words.
"""

import hashlib
import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config.model_settings import AnyModelConfig
from pipeline.errors import UsageError
from pipeline.storage.location import Location

_FILE = Path(__file__).with_name("vocabulary.txt")
_BATCH = 64
_ROWS = 1024  # texts that are compared with all earlier ones at once
_SAME = 0.999  # cosine from which two texts are one to the model
Encode = Callable[[list[str]], NDArray[np.float32]]
"""Unit features (n, E) of n texts."""
_in_memory: ContextVar[dict[str, NDArray[np.float32]] | None] = ContextVar(
    "_in_memory", default=None
)
"""Features that are kept here instead of in the output; None to store them there."""


@contextmanager
def nothing_stored() -> Iterator[None]:
    """Within it, `text_features` keeps features in memory and writes nothing."""
    token = _in_memory.set({})
    try:
        yield
    finally:
        _in_memory.reset(token)


def vocabulary() -> tuple[str, ...]:
    """Phrases of ordinary visible things, such as ``a watermark`` or ``gravel``."""
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if line and not line.startswith("#"))


def text_features(
    model: AnyModelConfig,
    digest: str,
    texts: Sequence[str],
    kept: Location,
    threads: int = 1,
    encode: Encode | None = None,
) -> NDArray[np.float32]:
    """(T, E) unit text features, encoded on the CPU once and read from a file later.

    Args:
        model: settings of the run's model, see `pipeline.results.reproduce.model_config`.
        digest: SHA-256 of the run's weights.
        texts: the texts to encode.
        kept: folder for the features.
        threads: number of torch threads.
        encode: encodes texts with the run's model; default the model is loaded for it.

    Raises:
        UsageError: the model here has other weights than the run's.
    """
    name = features_file(model, digest, texts)
    file, in_memory = kept.child(name), _in_memory.get()
    if in_memory is not None and name in in_memory:
        return in_memory[name]
    if file.exists():
        stored: NDArray[np.float32] = np.load(io.BytesIO(file.read()), allow_pickle=False)
        return stored
    encode = encode or _encoder(model, digest, threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # words that the mini model never saw
        batches = [encode(list(texts[i : i + _BATCH])) for i in range(0, len(texts), _BATCH)]
    features: NDArray[np.float32] = np.concatenate(batches).astype(np.float32)
    if in_memory is not None:
        in_memory[name] = features
        return features
    buffer = io.BytesIO()
    np.save(buffer, features)
    with suppress(UsageError):  # an output that can only be read; they are encoded again next time
        file.write(buffer.getvalue())
    return features


def _encoder(model: AnyModelConfig, digest: str, threads: int) -> Encode:
    from pipeline.stages.replica import ReplicaSettings  # imports torch, which takes seconds

    loaded = ReplicaSettings(model, "cpu", threads, 1).load_reader_of_texts()
    if loaded.digest != digest:
        raise UsageError(f"{model.name} has other weights here than in the run")
    return lambda texts: loaded.encode_text(texts).float().cpu().numpy()


def features_file(model: AnyModelConfig, digest: str, texts: Sequence[str]) -> str:
    """Name of the file that keeps the features of texts; arguments as for `text_features`."""
    key = hashlib.sha256(
        "\n".join([digest, getattr(model, "tokenizer", None) or "", *texts]).encode()
    ).hexdigest()
    return f"texts-{key[:24]}.npy"


def distinct_rows(features: NDArray[np.floating]) -> NDArray[np.int64]:
    """Rows (T, E) of unit length that no earlier row repeats: what the model cannot read is one."""
    single = features.astype(np.float32)
    repeats = np.zeros(len(single), bool)
    for start in range(0, len(single), _ROWS):
        alike = single[start : start + _ROWS] @ single[: start + _ROWS].T > _SAME
        repeats[start : start + _ROWS] = np.tril(alike, start - 1).any(axis=1)
    return np.flatnonzero(~repeats)
