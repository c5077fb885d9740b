"""``legrad explain``: one figure of a few images; it never starts Ray."""

import io
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.options import ModelOptions, grouped, say
from pipeline.errors import UsageError, counted

if TYPE_CHECKING:
    from PIL import Image

    from legrad.heatmaps import Scale
    from pipeline.config import AnyModelConfig, ClassifierConfig

_MOST_CLASSES = 8
_KINDS = {"png": "PNG", "jpg": "JPEG", "jpeg": "JPEG", "webp": "WEBP", "pdf": "PDF"}


@dataclass(frozen=True)
class ViewOptions:
    """How maps are drawn."""

    baseline: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Add a column for a text that names nothing, such as 'a photo'.",
        ),
    ] = None
    suppress: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="THRESHOLD",
            help="Leave out the cells where the normalised map of the baseline is above this (0.8 "
            "in the paper). Without --baseline, the baseline is the empty prompt.",
        ),
    ] = None
    scale: Annotated[
        str,
        typer.Option(
            metavar="SCOPE",
            help="Which maps share a colour scale: those of a row, a column or the whole figure, "
            "or map: each has its own.",
        ),
    ] = "row"
    distinct: Annotated[
        bool,
        typer.Option("--distinct", help="Explain what each text says beyond the other texts."),
    ] = False


@dataclass(frozen=True)
class ClassifierOptions:
    """A classifier instead of a vision-language model."""

    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER|MODULE:FUNCTION",
            help="Explain classes of a classifier: timm's name of a ViT, a folder that timm or "
            "transformers wrote, or a Python function that returns the module.",
        ),
    ] = None
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Weights of the classifier, from your training script."),
    ] = None
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Names of the classes: a file that lists them, or the folder of training images. "
            "Default: the names in the checkpoint.",
        ),
    ] = None

    def config(self, model: ModelOptions) -> "ClassifierConfig | None":
        """Validate the options; None if no classifier is named.

        Args:
            model: options of the model; layers, size and resizing apply to a classifier, too.

        Raises:
            UsageError: the options do not fit together, or the classifier cannot be loaded.
        """
        from pipeline.config import ClassifierConfig
        from pipeline.config.loading import validated

        if self.classifier is None:
            if self.checkpoint or self.classes:
                raise UsageError("--checkpoint and --classes need --classifier NAME")
            return None
        if model.model or model.pretrained:
            raise UsageError("--classifier takes no --model and no --pretrained: leave them out")
        settings = {
            "kind": "classifier",
            "name": self.classifier,
            "checkpoint": self.checkpoint,
            "classes": self.classes,
            "layers": model.layers,
            "resize": model.resize,
            "image_size": model.size,
        }
        chosen = {key: value for key, value in settings.items() if value is not None}
        return validated(ClassifierConfig, chosen, "options", Path.cwd())


@grouped
def explain(
    images: Annotated[
        list[str], typer.Argument(metavar="IMAGE...", help="Image files: paths or URIs.")
    ],
    model: ModelOptions,
    classifier: ClassifierOptions,
    view: ViewOptions,
    query: Annotated[
        list[str] | None,
        typer.Option(
            "--query",
            "-q",
            metavar="TEXT",
            help="Text to explain, or class of a classifier (default: all classes). Repeatable.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="FILE", help="Figure to write: .png, .jpg, .webp or .pdf."
        ),
    ] = None,
    save_maps: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write maps, scores and boxes to this .npz file."),
    ] = None,
) -> None:
    """Draw heatmaps of a few images for a few texts or classes, without a configuration."""
    settings = classifier.config(model) or model.config()
    raise typer.Exit(0 if draw(images, query or (), out, save_maps, settings, view) else 1)


def draw(
    images: Sequence[str],
    texts: Sequence[str],
    out: str | None,
    save_maps: str | None,
    settings: "AnyModelConfig",
    view: ViewOptions,
) -> bool:
    """Explain images and write the figure.

    Returns:
        Whether every image could be explained.

    Raises:
        UsageError: options that do not fit, or a model that cannot be loaded.
        RunError: no image could be explained.
    """
    from legrad.models import catalog
    from legrad.models.definition import MINI
    from pipeline.storage.location import open_location

    target = out or _default_name(images)
    kind = _checked(target, save_maps, images)
    scale = _scale(view.scale)
    if settings.name == MINI:
        say(f"warning: {catalog.MINI_WARNING}")
    texts = _texts(settings, texts)
    from pipeline.single_images import Question, explain_images  # imports torch

    baseline = view.baseline
    if baseline is None and view.suppress is not None:
        baseline = ""
    answer = explain_images(settings, images, Question(tuple(texts), baseline, view.distinct))
    for warning in answer.warnings:
        say(f"warning: {warning}")
    for image, reason in answer.failures.items():
        say(f"{image}: not explained: {reason}")
    open_location(target).write(_encoded(answer.figure(view.suppress, scale), kind))
    asked = counted(len(texts), "query", "queries")
    print(f"{target}: {counted(len(answer.names), 'image')}, {asked}")
    if save_maps:
        answer.save(save_maps)
        print(f"{save_maps}: raw maps {answer.maps.shape}, scores, boxes")
    return not answer.failures


def _texts(settings: "AnyModelConfig", texts: Sequence[str]) -> Sequence[str]:
    """The texts that were named, or all classes of a classifier.

    Raises:
        UsageError: none is named, and the model is not a classifier with few classes.
    """
    from pipeline.config import ClassifierConfig

    classes = settings.class_names if isinstance(settings, ClassifierConfig) else ()
    if texts:
        return texts
    if not classes:
        raise UsageError("no text to explain is named: -q TEXT")
    if len(classes) > _MOST_CLASSES:
        listed = ", ".join(classes[:_MOST_CLASSES])
        raise UsageError(
            f"{len(classes)} classes: name the ones to explain with -q CLASS ({listed}, ...)"
        )
    return classes


def _default_name(images: Sequence[str]) -> str:
    stem = posixpath.basename(images[0]).rpartition(".")[0] or posixpath.basename(images[0])
    return f"{stem}.legrad.png" if len(images) == 1 else "explained.png"


def _checked(target: str, save_maps: str | None, images: Sequence[str]) -> str:
    """Return the figure's format; refuse names of files that cannot be written.

    Raises:
        UsageError: an unknown suffix, or the figure would overwrite one of the images.
    """
    from pipeline.storage.location import open_location

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
