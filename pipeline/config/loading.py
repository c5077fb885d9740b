"""Read settings from a YAML file and the command line, and check them."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from legrad.settings import BASE, TextFrom, absolute, is_uri, text_from
from pipeline.config import AuditConfig, ClassifierConfig, RunConfig
from pipeline.config.model_settings import CLASSIFIER
from pipeline.errors import UsageError, counted
from pipeline.storage.location import redact

Model = TypeVar("Model", bound=BaseModel)


def load_config(path: str | Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read and check a run's configuration; opens no image and loads no model.

    Relative paths in the file are relative to the file, those in overrides to the current folder.

    Args:
        path: YAML file.
        overrides: ``section.key=value`` settings, the value in YAML.

    Raises:
        UsageError: a file is missing, the YAML is broken, a key is unknown, or a setting cannot
            work.
    """
    file = Path(path)
    folder = file.resolve().parent
    data = _overridden(_read_settings(file), overrides)
    queries = data.get("queries")
    if isinstance(queries, str):
        base = queries.base if isinstance(queries, TextFrom) else folder
        query_set = Path(absolute(queries, base))
        data["queries"] = text_from(_read_queries(query_set), query_set.resolve().parent)
    config = validated(RunConfig, data, str(file), folder)
    _files_exist(config, str(file))
    return config


def load_audit(path: str | Path | None, overrides: Sequence[str] = ()) -> AuditConfig:
    """Read and check the settings of an audit; without a file, the defaults with overrides.

    Relative paths are treated as by `load_config`.

    Raises:
        UsageError: as `load_config` does.
    """
    if path is None:
        return validated(AuditConfig, _overridden({}, overrides), "audit", Path.cwd())
    data = _overridden(_read_settings(Path(path), empty={}), overrides)
    return validated(AuditConfig, data, str(path), Path(path).resolve().parent)


def validated(
    kind: type[Model], data: dict[str, Any], where: str, base: Path | None = None
) -> Model:
    """Validate a group of settings.

    Args:
        kind: the settings model.
        data: settings by key.
        where: the file that holds them, for messages.
        base: folder that relative paths in them are relative to; None: they stay as they are.

    Raises:
        UsageError: with one line for each fault, which names its key.
    """
    try:
        return kind.model_validate(data, context=None if base is None else {BASE: base})
    except ValidationError as error:
        lines = [_describe(fault) for fault in error.errors()]
        found = f"{where}: {counted(len(lines), 'fault')}"
        raise UsageError("\n  ".join([found, *lines])) from error


def packaged_config(name: str) -> Path:
    """A configuration that ships with the package: ``demo.yaml``, ``queries/demo.yaml``, ..."""
    installed = Path(str(files("pipeline"))) / "configs" / name
    checkout = Path(str(files("pipeline"))).parent / "configs" / name
    return installed if installed.exists() else checkout


def _read_settings(file: Path, empty: Any = None) -> dict[str, Any]:
    """The settings in a YAML file; ``empty`` is what an empty file stands for."""
    data = _read_yaml(file) or empty
    if not isinstance(data, dict):
        raise UsageError(f"{file}: expected settings as `key: value`, found {type(data).__name__}")
    return data


def _overridden(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Apply ``--set`` overrides; paths in them are relative to the current folder."""
    for override in overrides:
        key, value = _override(override)
        _set(data, key.split("."), text_from(value, Path.cwd()))
    return data


def _read_yaml(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: not valid YAML: {error}") from error


def _read_queries(file: Path) -> list[Any]:
    """The queries of a query set; its ``templates`` apply to queries without their own."""
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
    kinds = ("vision_language", CLASSIFIER)  # which of two kinds of model, and no key
    key = ".".join(str(part) for part in fault["loc"] if part not in kinds)
    text = fault["msg"].removeprefix("Value error, ")
    value = fault.get("input")
    is_secret = any("options" in str(part) for part in fault["loc"])
    if fault["type"] not in ("value_error", "missing") and not isinstance(value, dict | tuple):
        text += "" if is_secret else f" (found {redact(repr(value))})"
    return f"{key}: {text}" if key else text


def _files_exist(config: RunConfig, where: str) -> None:
    """Refuse local files that are missing; a URI is checked when it is read."""
    weights = "checkpoint" if isinstance(config.model, ClassifierConfig) else "pretrained"
    files = [(config.model.weights_file, f"model.{weights}: no weights file")]
    files += [(file, f"queries: {q.name}: no file") for q in config.queries for file in q.files]
    for path, fault in files:
        if path is not None and not is_uri(path) and not Path(path).is_file():
            raise UsageError(f"{where}: {fault} at {path}")
