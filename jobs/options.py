"""What several commands share: messages, and groups of options, which typer does not have."""

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.config import AuditConfig, ModelConfig, RunConfig


OutArgument = Annotated[
    str, typer.Argument(metavar="OUT", help="Output folder of a run: a path or a URI.")
]
OutputsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="OUT...",
        help="Output folder of a run: a path or a URI. Outputs of later runs over the same images, "
        "with other queries, are joined to the first.",
    ),
]
ConfigArgument = Annotated[
    Path,
    typer.Argument(
        metavar="CONFIG",
        help="YAML file; configs/base.yaml lists every setting, `legrad init` "
        "writes one for your data.",
    ),
]
Limit = Annotated[
    int, typer.Option("--limit", "-n", metavar="N", min=1, help="Largest number of rows to print.")
]
ClassLabels = Annotated[
    str | None,
    typer.Option(
        metavar="TABLE",
        help="Table that replaces the labels of the images (columns key and label, or others with "
        "usual names), without a second run.",
    ),
]
LabelFiles = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FILE",
        help="Answers of a person on images that `legrad label` drew; they decide the pairs that "
        "they are about. Repeatable: a file for each person. Default: the answers that were given "
        "in `legrad view`.",
    ),
]
VerdictsFile = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="CSV file that keeps verdicts. Default: a file inside OUT."),
]


def say(text: str) -> None:
    """Write a message to standard error."""
    print(f"legrad: {text}", file=sys.stderr, flush=True)


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Replace every parameter whose type is a dataclass by one option for each of its fields."""
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: kind for name, kind in hints.items() if is_dataclass(kind)}
    spread: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            spread += _fields(groups[parameter.name])
        else:
            spread.append(parameter.replace(annotation=hints[parameter.name]))

    @wraps(command)
    def called(**values: Any) -> None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
        command(**values)

    spread.sort(key=lambda parameter: parameter.kind)
    called.__signature__ = inspect.Signature(spread)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in spread}
    return called


def _fields(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=hints[field.name])
        for field in fields(kind)
    ]


@dataclass(frozen=True)
class ModelOptions:
    """The model, and how it prepares an image."""

    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|FOLDER",
            help="Name of an open_clip model (`legrad models` lists them), a JSON file with an "
            "open_clip model config, a folder (open_clip_config.json, or a CLIPModel, SiglipModel "
            "or Siglip2Model of transformers), hf-hub:ORG/NAME, or mini, the demo's small model.",
        ),
    ] = None
    pretrained: Annotated[
        str | None,
        typer.Option(
            metavar="TAG|FILE", help="Weights: an open_clip tag, or a file (path or URI)."
        ),
    ] = None
    tag: Annotated[
        str | None,
        typer.Option(
            metavar="TAG",
            help="The open_clip tag that a weights file was trained from: activation and "
            "normalisation are the tag's. Needed where the tags of a name differ.",
        ),
    ] = None
    layers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="Explain the last N transformer blocks. Default: as published for the model.",
        ),
    ] = None
    resize: Annotated[
        str | None,
        typer.Option(
            metavar="MODE",
            help="How an image becomes the model's input: squash (the whole picture), center_crop "
            "or pad. Default: squash.",
        ),
    ] = None
    size: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS", min=1, help="Side of the model's input. Default: the model's own."
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="Tokenizer, where open_clip does not include it (SigLIP and others): a folder or "
            "a name on the Hugging Face hub.",
        ),
    ] = None

    def config(self) -> "ModelConfig":
        """Validate the options.

        Raises:
            UsageError: no model is named, or the settings do not fit it.
        """
        from pipeline.config import ModelConfig
        from pipeline.config.loading import validated

        if self.model is None:
            raise UsageError(
                "no model is named. Give one, such as --model ViT-B-16 --pretrained "
                "laion2b_s34b_b88k (`legrad models` lists all), or --model mini, which knows "
                "only the drawn scenes of the demo"
            )
        settings = {
            "name": self.model,
            "pretrained": self.pretrained,
            "tag": self.tag,
            "layers": self.layers,
            "resize": self.resize,
            "image_size": self.size,
            "tokenizer": self.tokenizer,
        }
        chosen = {key: value for key, value in settings.items() if value is not None}
        return validated(ModelConfig, chosen, "options")


@dataclass(frozen=True)
class StorageOptions:
    """How to reach an output, if the environment does not say it."""

    storage_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Option for the storage of OUT, as fsspec takes it; a dot for a nested option, as "
            "in client_kwargs.endpoint_url=https://... Repeatable. Other users of this machine can "
            "see it: put secrets into variables such as AWS_SECRET_ACCESS_KEY.",
        ),
    ] = None

    def options(self) -> dict[str, Any] | None:
        """The options as nested dictionaries; true and false are booleans, all else is text.

        Returns:
            None if none was given.

        Raises:
            UsageError: one has no key or no value. The message does not repeat it, since it may
                hold a secret.
        """
        options: dict[str, Any] = {}
        for number, text in enumerate(self.storage_option or (), 1):
            key, equals, value = text.partition("=")
            *groups, last = key.split(".")
            if not equals or not all((*groups, last)):
                raise UsageError(f"--storage-option number {number}: expected KEY=VALUE")
            level = options
            for group in groups:
                level = level.setdefault(group, {})
                if not isinstance(level, dict):
                    raise UsageError(f"--storage-option {key}: {group} already has a value")
            level[last] = {"true": True, "false": False}.get(value.lower(), value)
        return options or None


ConfigOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a setting of CONFIG, such as model.layers=4. Repeatable.",
    ),
]


@dataclass(frozen=True)
class RunOptions:
    """Settings of a run that are given on the command line."""

    overrides: ConfigOverrides = None
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Read only the first N images.")
    ] = None
    sample: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Read N images of every label (from tar shards: N in total)."
        ),
    ] = None
    shards: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Read only files whose name matches, such as '*-00[0-4].tar'."
        ),
    ] = None
    wait_resources: Annotated[
        float | None,
        typer.Option(
            min=0, metavar="SECONDS", help="Longest wait for the nodes that the run needs."
        ),
    ] = None

    def load(self, config: Path) -> "RunConfig":
        """Read a configuration and override what was given here.

        Raises:
            UsageError: see `pipeline.config.loading.load_config`.
        """
        from pipeline.config.loading import load_config

        chosen = {
            "source.limit": self.limit,
            "source.sample": self.sample,
            "source.shards": self.shards,
            "runtime.wait_resources": self.wait_resources,
        }
        sets = [f"{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]
        return load_config(config, [*(self.overrides or ()), *sets])


def words(**options: str | Sequence[str] | None) -> list[str]:
    """Options as the words of a command; those without a value are left out.

    Args:
        options: name, with an underscore for each hyphen, and its value or values.
    """
    given = []
    for name, value in options.items():
        for text in [value] if isinstance(value, str) else value or ():
            given += [f"--{name.replace('_', '-')}", text] if text else []
    return given


@dataclass(frozen=True)
class SettingsOptions:
    """Thresholds and other settings of an audit."""

    settings: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="YAML file with thresholds and more; configs/audit.yaml lists every setting.",
        ),
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a setting of the audit, such as gates.odds_ratio=2. Repeatable.",
        ),
    ] = None

    def config(self) -> "AuditConfig":
        """Validate the options. Edits of images would change nothing, so none are asked for.

        Raises:
            UsageError: see `pipeline.config.loading.load_audit`.
        """
        from pipeline.config.loading import load_audit

        settings = load_audit(self.settings, self.overrides or ())
        return settings.model_copy(update={"depth": "association", "classifier": None})

    def words(self) -> list[str]:
        """The options as the words of another command that audits the same results."""
        return words(settings=self.settings, set=self.overrides)


@dataclass(frozen=True)
class AuditOptions(SettingsOptions):
    """Depth and thresholds of an audit."""

    depth: Annotated[
        str | None,
        typer.Option(
            metavar="DEPTH",
            help="association (default): from stored scores and maps. reliance: also delete the "
            "cues of flagged pairs from images and measure what the model, and a linear probe on "
            "the labels, lose.",
        ),
    ] = None
    classifier: Annotated[
        str | None,
        typer.Option(
            metavar="OUT",
            help="Output of a run of your own classifier over the same images: tests whether it "
            "uses the flagged cues. Implies --depth reliance.",
        ),
    ] = None

    def config(self) -> "AuditConfig":
        """Validate the options.

        Raises:
            UsageError: see `pipeline.config.loading.load_audit`.
        """
        from pipeline.config.loading import load_audit

        chosen = {"depth": self.depth, "classifier": self.classifier}
        if self.classifier and self.depth is None:
            chosen["depth"] = "reliance"
        sets = [f"{key}={json.dumps(value)}" for key, value in chosen.items() if value is not None]
        return load_audit(self.settings, [*(self.overrides or ()), *sets])
