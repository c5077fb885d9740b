"""Directions in the embedding space that no text gives: exemplar images, vectors from a file."""

import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import fsspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

    from legrad.models.vision_language import VisionLanguageModel

VECTOR_SUFFIXES = (".npy", ".safetensors")


def split_place(vector: str) -> tuple[str, str]:
    """``file#part`` -> file and part; the part is empty where there is none."""
    file, _, part = vector.partition("#")
    return file, part


def read_vector(place: str) -> NDArray[np.float32]:
    """A vector (E,) from a file at a path or any fsspec URI.

    Args:
        place: a ``.npy`` file of one row, or of several with ``#number``; or a ``.safetensors``
            file of one tensor, or of several with ``#name``.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: not such a file, no such part, or not one row of finite numbers.
    """
    file, part = split_place(place)
    data = _read(file)
    values = _from_npy(place, data, part) if file.endswith(".npy") else _pick(place, data, part)
    row = np.squeeze(values)
    if row.ndim != 1 or not np.issubdtype(row.dtype, np.floating) or not np.isfinite(row).all():
        raise ValueError(
            f"vector {place}: expected one row of finite floats, found {values.dtype} "
            f"{values.shape} (name a row or tensor behind #)"
        )
    return row.astype(np.float32)


def exemplar_mean(model: "VisionLanguageModel", uris: Sequence[str]) -> "Tensor":
    """(E,) unit mean of the unit features of some image files, on the model's device.

    Raises:
        FileNotFoundError: a file is missing.  ValueError: it is no image.
    """
    import torch
    import torch.nn.functional as F

    features = [model.encode_image(_pixels(model, uri)[None])[0] for uri in uris]
    return F.normalize(torch.stack(features).mean(dim=0), dim=-1)


def content_digest(images: Sequence[str], vector: str | None) -> str | None:
    """SHA-256 (hex) of what a query's files hold, wherever they lie; None for a text."""
    if vector is not None:
        return hashlib.sha256(read_vector(vector).tobytes()).hexdigest()
    if not images:
        return None
    parts = [hashlib.sha256(_read(uri)).hexdigest() for uri in images]
    return hashlib.sha256("|".join(parts).encode()).hexdigest()


def _read(uri: str) -> bytes:
    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
    except FileNotFoundError:
        raise FileNotFoundError(f"no file at {uri}") from None
    return data


def _from_npy(place: str, data: bytes, part: str) -> NDArray[np.generic]:
    try:
        values: NDArray[np.generic] = np.load(io.BytesIO(data), allow_pickle=False)
        return values[int(part)] if part else values
    except (ValueError, EOFError, IndexError) as error:
        raise ValueError(f"vector {place}: not a row of a .npy file: {error}") from error


def _pick(place: str, data: bytes, part: str) -> NDArray[np.generic]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"vector {place}: not a .safetensors file: {error}") from error
    name = next(iter(tensors)) if not part and len(tensors) == 1 else part
    if name not in tensors:
        raise ValueError(f"vector {place}: name a tensor behind #: {', '.join(sorted(tensors))}")
    picked: NDArray[np.generic] = tensors[name]
    return picked


def _pixels(model: "VisionLanguageModel", uri: str) -> "Tensor":
    import torch

    try:
        with Image.open(io.BytesIO(_read(uri))) as image:
            pixels = model.preprocess(image)
    except (OSError, SyntaxError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"exemplar {uri}: not an image that Pillow reads: {error}") from error
    return torch.from_numpy(pixels)
