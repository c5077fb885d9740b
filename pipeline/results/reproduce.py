"""A run once more, from its manifest and rows: the same model, source, and pixels."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legrad.preprocess import Preprocess
from pipeline.config import ModelConfig, SourceConfig
from pipeline.errors import UsageError
from pipeline.sources.fetch import Origin
from pipeline.stages.decode import decode
from pipeline.storage.location import Options


def model_config(manifest: Mapping[str, Any]) -> ModelConfig:
    """The model that a run explained with."""
    identity, about = manifest["identity"], manifest["metadata"]["model"]
    return ModelConfig(
        name=about["name"],
        pretrained=about["pretrained"],
        image_size=tuple(identity["model.image_size"]),
        resize=identity["model.resize"],
        layers=identity["model.layers"],
        precision=identity["model.precision"],
        tokenizer=about.get("tokenizer"),  # unknown to earlier runs
    )


def source_config(manifest: Mapping[str, Any], options: Options, only: str) -> SourceConfig:
    """Some images of a run's source.

    Labels that came from a table beside the images are left out: they are in the run's results.

    Args:
        options: storage options, which no manifest holds.
        only: table of the ids of the images that are wanted.
    """
    source, identity = manifest["source"], manifest["identity"]
    fields = ("image_field", "label_field", "caption_field", "carry", "key_field", "max_pixels")
    values = {name: identity[f"source.{name}"] for name in fields if f"source.{name}" in identity}
    names = identity.get("source.label_names")
    return SourceConfig(
        format=source["format"],
        uri=source["uri"],
        alias=source.get("alias"),
        only=only,
        label_names=names and tuple(names),
        options=dict(options),
        **{name: value for name, value in values.items() if value is not None},
    )


def pixels_again(
    origin: Origin, row: Mapping[str, Any], preprocess: Preprocess, max_pixels: int
) -> NDArray[np.uint8] | str:
    """Pixels (3, height, width) of the model's input, fetched and decoded, or why there are none.

    Args:
        origin: where the images are.
        row: of the results, see `Origin.fetch`.
        preprocess: of the model.
        max_pixels: larger images are refused.
    """
    try:
        data = origin.fetch(row)
    except UsageError as error:
        return str(error)
    found = decode(data, preprocess, max_pixels)
    if found.pixels is None:
        return f"{found.status}: {found.error}"
    height, width = preprocess.size
    return np.frombuffer(found.pixels, dtype=np.uint8).reshape(3, height, width)
