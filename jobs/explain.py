"""``legrad explain``: one figure of a few images; it never starts Ray."""

import io
import posixpath
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.options import ModelOptions, ViewOptions
from legrad.models import catalog
from pipeline.errors import UsageError
from pipeline.storage.location import open_location

if TYPE_CHECKING:
    from PIL import Image

    from legrad.heatmaps import Scale

_KINDS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "pdf": "PDF"}


def explain(
    images: Sequence[str],
    texts: Sequence[str],
    out: str | None,
    save_maps: str | None,
    model: ModelOptions,
    view: ViewOptions,
) -> bool:
    """Explain images and write the figure; return whether every image could be explained.

    Raises:
        UsageError: options that do not fit, or a model that cannot be loaded.
        RunError: no image could be explained.
    """
    settings = model.config()
    target = out or _default_name(images)
    kind = _checked(target, save_maps, images)
    scale = _scale(view.scale)
    if settings.name == catalog.MINI:
        _say(f"warning: {catalog.MINI_WARNING}")
    from pipeline.single_images import Question, explain_images

    baseline = view.baseline
    if baseline is None and view.suppress is not None:
        baseline = ""
    answer = explain_images(settings, images, Question(tuple(texts), baseline))
    for warning in answer.warnings:
        _say(f"warning: {warning}")
    for image, reason in answer.failures.items():
        _say(f"{image}: not explained: {reason}")
    open_location(target).write(_encoded(answer.figure(view.suppress, scale), kind))
    print(f"{target}: {len(answer.names)} images, {len(texts)} queries")
    if save_maps:
        answer.save(save_maps)
        print(f"{save_maps}: raw maps {answer.maps.shape}, scores, boxes")
    return not answer.failures


def _default_name(images: Sequence[str]) -> str:
    stem = posixpath.basename(images[0]).rpartition(".")[0] or posixpath.basename(images[0])
    return f"{stem}.legrad.png" if len(images) == 1 else "explained.png"


def _checked(target: str, save_maps: str | None, images: Sequence[str]) -> str:
    """The figure's format; file names that cannot be written are refused before the work begins."""
    suffix = target.rpartition(".")[2].lower()
    if suffix not in _KINDS:
        raise UsageError(f"-o {target}: expected a name ending in {', '.join(_KINDS)}")
    if save_maps is not None and not save_maps.endswith(".npz"):
        raise UsageError(f"--save-maps {save_maps}: expected a name ending in npz")
    inputs = {open_location(image).path for image in images}
    if open_location(target).path in inputs:
        raise UsageError(f"-o {target}: this would overwrite one of the images")
    return _KINDS[suffix]


def _scale(name: str) -> "Scale":
    from legrad.heatmaps import SCALES

    for scale in SCALES:
        if scale == name:
            return scale
    raise UsageError(f"--scale {name}: expected one of {', '.join(SCALES)}")


def _encoded(figure: "Image.Image", kind: str) -> bytes:
    buffer = io.BytesIO()
    figure.save(buffer, kind, **({"quality": 92} if kind in ("JPEG", "WEBP") else {}))
    return buffer.getvalue()


def _say(text: str) -> None:
    print(f"legrad: {text}", file=sys.stderr, flush=True)
