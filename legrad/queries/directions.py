"""Directions in the embedding space from exemplar images and from files with vectors."""

import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import fsspec
import numpy as np
from numpy.typing import NDArray

from legrad.image_files import open_image

if TYPE_CHECKING:
    from torch import Tensor

    from legrad.models.vision_language import VisionLanguageModel

VECTOR_SUFFIXES = (".npy", ".safetensors")


def split_part(vector: str) -> tuple[str, str]:
    """``file#part`` -> file and part; the part may be empty."""
    file, _, part = vector.partition("#")
    return file, part


def read_vector(vector: str) -> NDArray[np.float32]:
    """A vector (E,) from a file at a path or any fsspec URI.

    Args:
        vector: a ``.npy`` file of one row, or ``file#number`` for one of several; or a
            ``.safetensors`` file of one tensor, or ``file#name`` for one of several.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is of another format, has no such part, or the part is not one row of
            finite floats.
    """
    file, part = split_part(vector)
    data = _read(file)
    values = (
        _from_npy(vector, data, part)
        if file.endswith(".npy")
        else _from_safetensors(vector, data, part)
    )
    row = np.squeeze(values)
    if row.ndim != 1 or not np.issubdtype(row.dtype, np.floating) or not np.isfinite(row).all():
        raise ValueError(
            f"vector {vector}: expected one row of finite floats, found {values.dtype} "
            f"{values.shape} (give the number of a row or the name of a tensor after #)"
        )
    return row.astype(np.float32)


def exemplar_mean(model: "VisionLanguageModel", uris: Sequence[str]) -> "Tensor":
    """(E,) normalised mean of the unit features of image files, on the model's device.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is not an image.
    """
    import torch
    import torch.nn.functional as F

    features = [model.encode_image(_pixels(model, uri)[None])[0] for uri in uris]
    return F.normalize(torch.stack(features).mean(dim=0), dim=-1)


def vector_direction(model: "VisionLanguageModel", vector: str) -> "Tensor":
    """(E,) a vector from a file, on the model's device.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is invalid, or the vector is not as long as the model's embeddings.
    """
    import torch

    values = torch.from_numpy(read_vector(vector))
    width = model.tower.embed_dim
    if len(values) != width:
        raise ValueError(
            f"vector {vector}: expected {width} numbers, the width of the embedding of "
            f"{model.name!r}, found {len(values)}"
        )
    return values.to(model.device, model.exact_dtype)


def content_digest(images: Sequence[str], vector: str | None) -> str | None:
    """SHA-256 (hex) of the content of a query's files, whatever their paths; None without files."""
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


def _from_npy(vector: str, data: bytes, part: str) -> NDArray[np.generic]:
    try:
        values: NDArray[np.generic] = np.load(io.BytesIO(data), allow_pickle=False)
        return values[int(part)] if part else values
    except (ValueError, EOFError, IndexError) as error:
        raise ValueError(f"vector {vector}: not a row of a .npy file: {error}") from error


def _from_safetensors(vector: str, data: bytes, part: str) -> NDArray[np.generic]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except SafetensorError as error:
        raise ValueError(f"vector {vector}: not a .safetensors file: {error}") from error
    name = next(iter(tensors)) if not part and len(tensors) == 1 else part
    if name not in tensors:
        raise ValueError(
            f"vector {vector}: give the name of a tensor after #: {', '.join(sorted(tensors))}"
        )
    picked: NDArray[np.generic] = tensors[name]
    return picked


def _pixels(model: "VisionLanguageModel", uri: str) -> "Tensor":
    import torch

    try:
        with open_image(_read(uri)) as image:
            pixels = model.preprocess(image)
    except (OSError, SyntaxError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"exemplar {uri}: not an image that Pillow reads: {error}") from error
    return torch.from_numpy(pixels)
