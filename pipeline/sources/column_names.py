"""The names that people and tools give to the columns of image tables, and values that are images.

Names are compared without regard to case. Those of images are in the order in which they are
preferred where a table has several.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from pipeline.config import is_uri
from pipeline.sources.input_rows import text_of
from pipeline.sources.webdataset import IMAGE_EXTENSIONS

IMAGES = (
    *("image", "uri", "url", "image_uri", "image_url", "image_path", "path", "file_name"),
    *("filename", "filepath", "file_path", "fname", "image_file", "image_name", "img_path"),
    *("imagepath", "imagename", "img", "img_file", "file", "img_name", "picture", "photo"),
)
IDS = ("id_code", "image_id", "imageid", "img_id", "id")
"""Names of columns whose values may be file names without an extension."""
LABELS = (
    *("label", "labels", "class", "class_name", "classname", "class_label", "category"),
    *("category_name", "target", "species", "breed", "diagnosis"),
)
CAPTIONS = ("caption", "captions", "text", "comment", "sentence", "description", "alt_text")
_EXTENSION = re.compile(rf"\.({'|'.join(IMAGE_EXTENSIONS)})(\?.*)?$", re.IGNORECASE)


@lru_cache(maxsize=1024)
def named(names: tuple[str, ...], usual: tuple[str, ...]) -> str | None:
    """The name that comes first among the usual ones; None if there is none."""
    by_lower: dict[str, str] = {}
    for name in names:
        by_lower.setdefault(name.strip().lower().replace(" ", "_"), name)
    return next((by_lower[name] for name in usual if name in by_lower), None)


def is_usual(name: str) -> bool:
    """Whether a column may hold image, label or caption by its name."""
    return named((name,), (*IMAGES, *IDS, *LABELS, *CAPTIONS)) is not None


def column_of_paths(records: Sequence[Mapping[str, Any]]) -> str | None:
    """The column that names images, by the usual names and by its values; None if none does.

    Args:
        records: the first records of a table.
    """
    values: dict[str, list[str]] = {}
    for record in records:
        for name, value in record.items():
            text = path_in(value)
            if text is not None:
                values.setdefault(name, []).append(text)
    looking = [name for name, texts in values.items() if all(map(_looks_like_image, texts))]
    return (
        named(tuple(looking), IMAGES)
        or named(tuple(values), IMAGES)
        or next(iter(looking), None)
        or named(tuple(values), IDS)
    )


def path_in(value: Any) -> str | None:
    """The path or URI in a value: a text, or a mapping with one, as Hugging Face writes it."""
    return text_of(value.get("path") if isinstance(value, dict) else value)


def has_image_extension(path: str) -> bool:
    """Whether a path or URI ends as those of images do."""
    return _EXTENSION.search(path) is not None


def _looks_like_image(text: str) -> bool:
    return has_image_extension(text) or (is_uri(text) and " " not in text)
