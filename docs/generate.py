"""Writes docs/reference/ from docstrings, settings models and commands: ``make docs``."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel

REFERENCE = Path(__file__).parent / "reference"
PUBLIC = {
    "legrad": (
        "load_model list_models LeGrad Explanation VisionLanguageModel Query encode_maps "
        "decode_maps from_open_clip ListedModel UnsupportedModelError"
    ),
    "pipeline": "open_results Results Audit",
    "pipeline.report.site": "build_report",
    "pipeline.report.contents": "Limits",
    "pipeline.export": "export",
}
_NOTE = "<!-- Made by `make docs`; do not edit. -->"
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields):$")
_WIDTH = 100
_ITEM = re.compile(r"^([*\w][\w, .*]*): +(.*)$")


def pages() -> dict[str, str]:
    """File name -> text of every page."""
    from pipeline.config import AuditConfig, RunConfig

    about = "Keys of `run.yaml`, for `legrad run` and `legrad submit`. `--set a.b=c` overrides one."
    audit = "Settings of `legrad audit`, `report` and `export`: `--settings FILE`, `--set a.b=c`."
    return {
        "api.md": _page("Python", _api()),
        "run-settings.md": _page("Settings of a run", [about, *settings(RunConfig)]),
        "audit-settings.md": _page("Settings of the audit", [audit, *settings(AuditConfig)]),
        "commands.md": _page("Commands", [_commands()]),
    }


def _page(title: str, parts: list[str]) -> str:
    return "\n\n".join([_NOTE, f"# {title}", *parts]).rstrip() + "\n"


def _api() -> list[str]:
    parts = []
    for module, names in PUBLIC.items():
        home = import_module(module)
        parts.append(f"## `{module}`")
        for name in names.split():
            parts += _described(name, getattr(home, name), "###")
    return parts


def _described(name: str, thing: Any, level: str) -> Iterator[str]:
    """A function or a class with its public members, as Markdown."""
    yield f"{level} `{name}`"
    if not inspect.isclass(thing):
        yield f"```python\n{_signature(thing)}\n```"
        yield markdown(inspect.getdoc(thing) or "")
        return
    if "__init__" in vars(thing) and inspect.isfunction(thing.__init__):
        made = _signature(thing.__init__)  # nothing where a dataclass made it
        if made:
            yield f"```python\n{made.replace('__init__', name)}\n```"
    yield markdown(inspect.getdoc(thing) or "")
    for member, value in vars(thing).items():
        inner = _function(value)
        if member.startswith("_") or inner is None or not inspect.getdoc(inner):
            continue
        yield f"{level}# `{name}.{member}`"
        if isinstance(value, property | cached_property):
            yield f"```python\n{member}: {_returned(inner)}\n```"
        else:
            yield f"```python\n{_signature(inner)}\n```"
        yield markdown(inspect.getdoc(inner) or "")


def _function(value: Any) -> Callable[..., Any] | None:
    """The function behind a member of a class."""
    if isinstance(value, property):
        return value.fget
    if isinstance(value, cached_property):
        return value.func
    if isinstance(value, classmethod | staticmethod):
        return value.__func__
    return value if inspect.isfunction(value) else None


def _node(function: Callable[..., Any]) -> ast.FunctionDef | None:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):  # made by dataclasses: no source
        return None
    found = tree.body[0]
    return found if isinstance(found, ast.FunctionDef) else None


def _signature(function: Callable[..., Any]) -> str:
    """As it stands in the source, an argument a line where it is long."""
    node = _node(function)
    if node is None:
        return ""
    given = [one for one in _arguments(node.args) if one not in ("self", "cls")]
    back = f" -> {_plain(node.returns)}" if node.returns and node.name != "__init__" else ""
    short = f"{node.name}({', '.join(given)}){back}"
    if len(short) <= _WIDTH:
        return short
    return f"{node.name}(\n" + "".join(f"    {one},\n" for one in given) + f"){back}"


def _arguments(args: ast.arguments) -> Iterator[str]:
    """Each as it stands in a signature."""
    plain = [*args.posonlyargs, *args.args]
    defaults = [*[None] * (len(plain) - len(args.defaults)), *args.defaults]
    yield from map(_argument, plain, defaults)
    if args.vararg:
        yield "*" + _argument(args.vararg)
    elif args.kwonlyargs:
        yield "*"
    yield from map(_argument, args.kwonlyargs, args.kw_defaults)
    if args.kwarg:
        yield "**" + _argument(args.kwarg)


def _argument(one: ast.arg, default: ast.expr | None = None) -> str:
    kind = f": {_plain(one.annotation)}" if one.annotation else ""
    sign = " = " if kind else "="
    return f"{one.arg}{kind}" + (f"{sign}{ast.unparse(default)}" if default else "")


def _plain(annotation: ast.expr) -> str:
    """An annotation, without quotes where it is a string."""
    quoted = isinstance(annotation, ast.Constant) and isinstance(annotation.value, str)
    return str(annotation.value) if quoted else ast.unparse(annotation)


def _returned(function: Callable[..., Any]) -> str:
    node = _node(function)
    return _plain(node.returns) if node is not None and node.returns else "Any"


def markdown(doc: str) -> str:
    """A Google docstring as Markdown: its sections become lists."""
    lines, parts, section = doc.replace("``", "`").splitlines(), [], ""
    for block in re.split(r"\n(?=\S)", "\n".join(lines)):
        head, _, rest = block.partition("\n")
        named = _SECTION.match(head)
        if named is None:
            parts.append(block)
            continue
        section, body = named[1], textwrap.dedent(rest).strip()
        listed = section in ("Args", "Attributes", "Raises")
        parts.append(f"\n**{section}**\n\n{_listed(body) if listed else body}")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).strip()


def items(body: str) -> dict[str, str]:
    """``name: text`` entries of a section, continuation lines joined."""
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=\S)", body):
        told = _ITEM.match(" ".join(entry.split()))
        if told:
            found |= {name.strip(): told[2] for name in told[1].split(",")}
    return found


def _listed(body: str) -> str:
    entries = [" ".join(entry.split()) for entry in re.split(r"\n(?=\S)", body)]
    return "\n".join("- " + _ITEM.sub(r"`\1`: \2", entry) for entry in entries)


def settings(model: type[BaseModel], path: str = "") -> list[str]:
    """A table of a model's keys, then those of the groups in it."""
    schema = model.model_json_schema()
    names = schema.get("$defs", {})
    doc = inspect.getdoc(model) or ""
    _, _, told = doc.partition("Attributes:\n")
    meanings = items(textwrap.dedent(told).replace("``", "`"))
    rows, groups = [], []
    for key, one in schema["properties"].items():
        default = _default(model, key)
        if isinstance(default, BaseModel) or set(one) == {"$ref"}:
            kind = model.model_fields[key].annotation
            group = type(default) if isinstance(default, BaseModel) else kind
            assert isinstance(group, type)
            groups += settings(group, f"{path}{key}.")
            continue
        kind = _kind(one, names).replace("|", "\\|")
        rows.append(f"| `{path}{key}` | {kind} | {_shown(default)} | {meanings.get(key, '')} |")
    title = [f"## `{path[:-1]}`"] if path else []
    table = ["| key | what | default | meaning |", "|---|---|---|---|", *rows]
    head = markdown(doc.partition("Attributes:")[0])
    return [*title, head, "\n".join(table), *groups]


def _default(model: type[BaseModel], key: str) -> Any:
    field = model.model_fields[key]
    return ... if field.is_required() else field.get_default(call_default_factory=True)


def _shown(value: Any) -> str:
    if value is ...:
        return "required"
    plain = [str(v) for v in value] if isinstance(value, list | tuple) else value
    return {"None": "none", "True": "`true`", "False": "`false`"}.get(str(plain), f"`{plain}`")


def _kind(one: Mapping[str, Any], names: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    several = one.get("anyOf") or one.get("oneOf")
    if several:
        return " or ".join(_kind(o, names) for o in several if o.get("type") != "null")
    if "$ref" in one:
        return _kind(names[one["$ref"].rpartition("/")[2]], names)
    if "enum" in one or "const" in one:
        return ", ".join(f"`{v}`" for v in one.get("enum", [one.get("const")]))
    if "prefixItems" in one:
        return f"{len(one['prefixItems'])} of {_kind(one['prefixItems'][0], names)}"
    if one.get("type") == "array":
        return f"list of {_kind(one.get('items') or {}, names)}"
    if one.get("type") == "object":
        keys = ", ".join(f"`{key}`" for key in one.get("properties", {}))
        return f"mapping with {keys}" if keys else "mapping"
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {one[key]:g}" for key, sign in signs.items() if key in one]
    words = {"string": "text", "integer": "whole number", "boolean": "true or false"}
    return " ".join([words.get(str(one.get("type")), str(one.get("type", "any"))), *bounds])


def _commands() -> str:
    import typer
    from typer.cli import get_docs_for_click

    from jobs.cli import app

    command = typer.main.get_command(app)
    made = get_docs_for_click(obj=command, ctx=typer.Context(command), name="legrad")
    return re.sub(r"^# `legrad`\n+", "", made.strip())


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, text in pages().items():
        (REFERENCE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
