"""A run's settings once more, from its manifest: the same model, the same images."""

from collections.abc import Mapping
from typing import Any

from pipeline.config import ModelConfig, SourceConfig
from pipeline.storage import Options


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
