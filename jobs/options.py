"""Options that several commands share, as groups; typer knows single parameters only."""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.config import AuditConfig, ModelConfig, RunConfig


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Spread every parameter whose type is a dataclass into its fields, one option each."""
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
    """Which model, and how it looks at an image."""

    model: Annotated[
        str | None,
        typer.Option(help="open_clip's name (`legrad models`), or mini for the demo's scenes."),
    ] = None
    pretrained: Annotated[
        str | None, typer.Option(help="open_clip tag, or a weights file: path or URI.")
    ] = None
    layers: Annotated[
        int | None, typer.Option(min=1, help="Last blocks explained; default the model's own.")
    ] = None
    resize: Annotated[str | None, typer.Option(help="squash (whole picture), center_crop, ...")] = (
        None
    )
    size: Annotated[
        int | None, typer.Option(min=1, help="Input side in pixels; default the model's own.")
    ] = None

    tokenizer: Annotated[
        str | None, typer.Option(help="SigLIP and others: folder of its tokenizer, or a hub name.")
    ] = None

    def config(self) -> "ModelConfig":
        """Check them.

        Raises:
            UsageError: no model is named, or the settings do not fit it.
        """
        from pipeline.config import ModelConfig
        from pipeline.config.loading import validated

        if self.model is None:
            raise UsageError(
                "which model? --model ViT-B-16 --pretrained laion2b_s34b_b88k, say (`legrad "
                "models` lists them), or --model mini, which knows nothing but the demo's scenes"
            )
        return validated(ModelConfig, self.settings(), "options")

    def settings(self) -> dict[str, Any]:
        """As the group ``model`` of a configuration; what was not given is left out."""
        given = {
            "name": self.model,
            "pretrained": self.pretrained,
            "layers": self.layers,
            "resize": self.resize,
            "image_size": self.size,
            "tokenizer": self.tokenizer,
        }
        return {key: value for key, value in given.items() if value is not None}


@dataclass(frozen=True)
class ViewOptions:
    """How maps are shown."""

    baseline: Annotated[
        str | None,
        typer.Option(help="One column more: a text that names nothing, such as 'a photo'."),
    ] = None
    suppress: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            metavar="THRESHOLD",
            help="Blank the cells where the baseline's normalised map exceeds this (0.8 as "
            "published; the baseline is then the empty prompt unless you name one).",
        ),
    ] = None
    scale: Annotated[
        str,
        typer.Option(help="What shares a colour scale: row, column, figure; map: none."),
    ] = "row"


@dataclass(frozen=True)
class StorageOptions:
    """How to reach an output, where the environment does not say it."""

    storage_option: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Option of the output's storage, as fsspec takes it; dots go deeper: "
            "client_kwargs.endpoint_url=https://... Repeat for more. Others on this machine can "
            "see a command's arguments: secrets are better in AWS_SECRET_ACCESS_KEY.",
        ),
    ] = None

    def options(self) -> dict[str, Any] | None:
        """As nested groups; true and false are booleans, all else is text. None: none given.

        Raises:
            UsageError: one has no key or no value; what it holds is not said.
        """
        found: dict[str, Any] = {}
        for number, given in enumerate(self.storage_option or (), 1):
            key, equals, value = given.partition("=")
            *groups, last = key.split(".")
            if not equals or not all((*groups, last)):
                raise UsageError(f"--storage-option number {number}: expected KEY=VALUE")
            place = found
            for group in groups:
                place = place.setdefault(group, {})
                if not isinstance(place, dict):
                    raise UsageError(f"--storage-option {key}: {group} has a value already")
            place[last] = {"true": True, "false": False}.get(value.lower(), value)
        return found or None


@dataclass(frozen=True)
class RunOptions:
    """What is set on the command line of a run."""

    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: model.layers=4."),
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first N rows.")] = None
    sample: Annotated[
        int | None, typer.Option(min=1, help="N images of every label (of tars: in all).")
    ] = None
    shards: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Only files whose name matches.")
    ] = None
    wait_resources: Annotated[
        float | None,
        typer.Option(min=0, metavar="SECONDS", help="Wait so long for the nodes a run needs."),
    ] = None

    def load(self, config: Path) -> "RunConfig":
        """Read a configuration with these on top.

        Raises:
            UsageError: as `pipeline.config.loading.load_config`.
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


@dataclass(frozen=True)
class ShippingOptions:
    """What goes to the cluster beside the settings."""

    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", metavar="NAME", help="Pass a variable of this environment; repeat for more."
        ),
    ] = None
    installed: Annotated[
        bool, typer.Option("--installed", help="Use the package that the cluster's image has.")
    ] = False
    pip: Annotated[
        bool,
        typer.Option("--pip", help="Install what the package needs on the nodes first; slow once."),
    ] = False


@dataclass(frozen=True)
class AuditOptions:
    """How deeply and how strictly is audited."""

    depth: Annotated[
        str | None,
        typer.Option(
            help="association: from stored scores and maps (default). reliance: also delete the "
            "cues of flagged pairs and ask what the model, and a probe on the labels, lose.",
        ),
    ] = None
    settings: Annotated[
        str | None, typer.Option(help="YAML file of gates and more; see configs/audit.yaml.")
    ] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one: gates.odds_ratio=2."),
    ] = None

    def config(self) -> "AuditConfig":
        """Check them; raises UsageError."""
        from pipeline.config.loading import load_audit

        depth = [] if self.depth is None else [f"depth={self.depth}"]
        return load_audit(self.settings, [*(self.overrides or ()), *depth])
