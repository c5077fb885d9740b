"""Find the annotations of a folder of images: COCO's, or CelebA's table of attributes."""

import posixpath
import re
from collections.abc import Sequence
from typing import Any

from pipeline.sources.listing import SourceFile
from pipeline.storage.location import open_location
from pipeline.storage.tables import column_names

_ANNOTATIONS = re.compile(
    r"(.*/)?(instances_[^/]*\.json|_annotations\.coco\.json|list_attr_celeba\.(txt|csv))"
)


def find_annotations(uris: Sequence[str], files: Sequence[SourceFile]) -> dict[str, Any] | None:
    """The settings ``source.labels`` for the annotations in or beside a folder; None without any.

    Args:
        uris: places of the images.
        files: all files in them.
    """
    if len(uris) != 1:
        return None
    root = uris[0].rstrip("/")
    inside = [f"{root}/{file.name}" for file in files if _ANNOTATIONS.fullmatch(file.name)]
    place = next((place for place in (*inside, *_beside(root)) if _exists(place)), None)
    if place is None:
        return None
    if not place.endswith(".csv"):
        return {"uri": place}
    names = column_names(open_location(place).read(), place)
    return {"uri": place, "key": names[0], "columns": names[1:]}


def _beside(root: str) -> list[str]:
    parent, name = posixpath.split(root)
    parent = parent or "."
    return [
        f"{parent}/annotations/instances_{name}.json",
        f"{parent}/list_attr_celeba.txt",
        f"{parent}/list_attr_celeba.csv",
    ]


def _exists(place: str) -> bool:
    location = open_location(place)
    return not location.is_web and bool(location.fs.isfile(location.path))
