"""YAML file and command-line settings -> a checked `RunConfig`, with messages people can act on."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from legrad.models.weights import is_weights_file
from pipeline.config import AuditConfig, RunConfig, absolute
from pipeline.errors import UsageError
from pipeline.storage.location import redact

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a run's configuration; opens no image and loads no model.

    Relative paths in the file are relative to the file, those in overrides to the current folder.

    Args:
        path: YAML file.
        overrides: ``section.key=value`` settings, the value in YAML.

    Raises:
        UsageError: a missing file, broken YAML, an unknown key, or a setting that cannot work.
    """
    file = Path(path)
    data = _read_yaml(file)
    if not isinstance(data, dict):
        raise UsageError(f"{file}: expected settings as `key: value`, found {type(data).__name__}")
    _resolve(data, file.resolve().parent)
    for override in overrides:
        key, value = _override(override)
        _set(data, key.split("."), value)
        _resolve(data, Path.cwd())
    config = check(data, str(file))
    _files_exist(config, str(file))
    return config


def load_audit(path: str | Path | None, overrides: Sequence[str] = ()) -> AuditConfig:
    """Read and check the settings of an audit; without a file, the defaults with overrides.

    Raises:
        UsageError: as `load_config` does.
    """
    data = {} if path is None else _read_yaml(Path(path)) or {}
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected settings as `key: value`, found {type(data).__name__}")
    if path is not None and isinstance(data.get("examples"), str):
        data["examples"] = absolute(data["examples"], Path(path).resolve().parent)
    for override in overrides:
        key, value = _override(override)
        _set(data, key.split("."), value)
    return validated(AuditConfig, data, "audit" if path is None else str(path))


def check(data: dict[str, Any], where: str) -> RunConfig:
    """Validate the settings of a run.

    Raises:
        UsageError: with one line a fault, each naming its key.
    """
    return validated(RunConfig, data, where)


def validated(kind: type[Model], data: dict[str, Any], where: str) -> Model:
    """Validate a group of settings; raises as `check` does."""
    try:
        return kind.model_validate(data)
    except ValidationError as error:
        lines = [_describe(fault) for fault in error.errors()]
        raise UsageError("\n  ".join([f"{where}: {len(lines)} fault(s)", *lines])) from error


def packaged_config(name: str) -> Path:
    """A configuration that ships with the package: ``demo.yaml``, ``queries/demo.yaml``, ..."""
    installed = Path(str(files("pipeline"))) / "configs" / name
    checkout = Path(str(files("pipeline"))).parent / "configs" / name
    return installed if installed.exists() else checkout


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: not valid YAML: {error}") from error


def _resolve(data: dict[str, Any], base: Path) -> None:
    """Make paths absolute and read query files, in place; wrong types are left to the models."""
    source, model = data.get("source"), data.get("model")
    if isinstance(source, dict) and "uri" in source:
        source["uri"] = _absolute_all(source.get("uri"), base)
    labels = source.get("labels") if isinstance(source, dict) else None
    if isinstance(labels, dict) and "uri" in labels:
        labels["uri"] = _absolute_all(labels["uri"], base)
    if isinstance(source, dict) and isinstance(source.get("only"), str):
        source["only"] = absolute(source["only"], base)
    if isinstance(data.get("output"), str):
        data["output"] = absolute(data["output"], base)
    if isinstance(model, dict) and isinstance(model.get("pretrained"), str):
        text = model["pretrained"]
        model["pretrained"] = absolute(text, base) if is_weights_file(text) else text
    if isinstance(model, dict) and isinstance(model.get("tokenizer"), str):
        folder = absolute(model["tokenizer"], base)
        model["tokenizer"] = folder if Path(folder).is_dir() else model["tokenizer"]
    if isinstance(data.get("queries"), str):
        file = Path(absolute(data["queries"], base))
        data["queries"] = _with_places(_read_queries(file), file.resolve().parent)
    elif isinstance(data.get("queries"), list):
        data["queries"] = _with_places(data["queries"], base)


def _with_places(queries: list[Any], base: Path) -> list[Any]:
    """Queries whose files are absolute; wrong types are left to the models."""
    return [_with_place(query, base) if isinstance(query, dict) else query for query in queries]


def _with_place(query: dict[str, Any], base: Path) -> dict[str, Any]:
    placed = dict(query)
    if isinstance(placed.get("vector"), str):
        placed["vector"] = absolute(placed["vector"], base)
    images = placed.get("images")
    images = [images] if isinstance(images, str) else images
    if isinstance(images, list):
        placed["images"] = [absolute(i, base) if isinstance(i, str) else i for i in images]
    return placed


def _absolute_all(places: Any, base: Path) -> Any:
    """Every path in a setting that holds one, a list of them, or names with any of these."""
    if isinstance(places, dict):
        return {name: _absolute_all(place, base) for name, place in places.items()}
    if isinstance(places, list):
        return [_absolute_all(place, base) for place in places]
    return absolute(places, base) if isinstance(places, str) else places


def _read_queries(file: Path) -> list[Any]:
    """A query set: ``templates`` for all that name none, and ``queries``."""
    data = _read_yaml(file)
    if isinstance(data, list):
        return data
    if not isinstance(data, dict) or not isinstance(data.get("queries"), list):
        raise UsageError(f"{file}: expected a list of queries, or `templates:` and `queries:`")
    unknown = set(data) - {"templates", "queries"}
    if unknown:
        raise UsageError(
            f"{file}: unknown key {', '.join(sorted(map(repr, unknown)))}; valid keys: templates, "
            "queries"
        )
    shared = {"templates": data["templates"]} if "templates" in data else {}
    return [shared | query if isinstance(query, dict) else query for query in data["queries"]]


def _override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"--set {text}: expected section.key=value")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UsageError(f"--set {text}: the value is not valid YAML: {error}") from error


def _set(data: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        data = data.setdefault(key, {})
        if not isinstance(data, dict):
            raise UsageError(f"--set {'.'.join(keys)}: {key} is not a group of settings")
    data[keys[-1]] = value


def _describe(fault: Any) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    text = fault["msg"].removeprefix("Value error, ")
    found = fault.get("input")
    secret = any("options" in str(part) for part in fault["loc"])
    if fault["type"] not in ("value_error", "missing") and not isinstance(found, dict | tuple):
        text += "" if secret else f" (found {redact(repr(found))})"
    return f"{place}: {text}" if place else text


def _files_exist(config: RunConfig, where: str) -> None:
    """Local files that settings name; those behind a URI are found out by their reader."""
    named = [(config.model.weights_file, "model.pretrained: no weights file")]
    named += [(file, f"queries: {q.name}: no file") for q in config.queries for file in q.files]
    for place, what in named:
        if place is not None and "://" not in place and not Path(place).is_file():
            raise UsageError(f"{where}: {what} at {place}")
