"""What the JSON and the texts of an image say about it: members of a tar, or files beside it."""

import json
from collections.abc import Mapping
from typing import Any

from pipeline.config import SourceConfig
from pipeline.sources.input_rows import Row, captions_of, carried, joined_captions, text_of
from pipeline.sources.label_values import label_in, label_value
from pipeline.storage.text import decode, encoding_of


def described(fields: Mapping[str, bytes], name: str, source: SourceConfig) -> Row:
    """Label, caption and carried columns of an image.

    Args:
        fields: contents by field: ``json``, ``txt``, ``cls``, ``label.txt``, ...
        name: name of the image among several of one sample; empty for the only one.
        source: which fields hold label and caption.
    """
    record = record_of(fields, name)
    label, caption = source.label_field.lower(), source.caption_field.lower()
    labels = label_in(record, source, source.label_field)
    if labels is None and not source.label_columns:
        texts = (label, f"{label}.cls", f"{label}.txt", f"{name}.cls", "cls")
        labels = label_value(_text(fields, *texts), source.label_separator)
    return {
        "label": labels,
        "caption": joined_captions(
            captions_of(record.get(source.caption_field, _text(fields, caption)))
        )
        or text_of(_text(fields, f"{caption}.txt", f"{name}.txt", "txt")),
        **carried(record, source.carry),
    }


def record_of(fields: Mapping[str, bytes], name: str = "") -> dict[str, Any]:
    """The JSON of an image, else of its sample; broken JSON counts as absent."""
    try:
        value = json.loads(fields.get(f"{name}.json", fields.get("json", b"{}")))
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _text(fields: Mapping[str, bytes], *names: str) -> str | None:
    """The text of the first of these fields that there is."""
    data = next((fields[name] for name in names if name in fields), None)
    return None if data is None else decode(data, encoding_of(data))[0].removeprefix("\ufeff")
