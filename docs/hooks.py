"""Pages of the site that are made while it is built: settings, commands, and files of the root.

A table of settings with dotted keys, as YAML and ``--set`` spell them, is what users look for; the
plugins for pydantic list each model for itself, so the tables are made here from the models.
"""

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import griffe
import typer.cli
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

ROOT = Path(__file__).parents[1]
ROOT_PAGES = {"index.md": "README.md", "contributing.md": "CONTRIBUTING.md"}
ROOT_PAGES |= {"changelog.md": "CHANGELOG.md"}
_LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
_BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
_TYPES = {"string": "text", "integer": "whole number", "boolean": "true or false"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, those of the repository's root, and every file that pages link."""
    from pipeline.config import AuditConfig, RunConfig

    run = "Keys of `run.yaml`, for `legrad run` and `legrad submit`; `--set a.b=c` overrides one."
    audit = (
        "Settings of `legrad audit`, `discover`, `label`, `view`, `report` and `export`: "
        "`--settings FILE`, `--set a.b=c`."
    )
    pages = {
        "commands.md": commands_page(),
        "run-settings.md": "\n\n".join(["# Settings of a run", run, *tables(RunConfig)]),
        "audit-settings.md": "\n\n".join(["# Settings of the audit", audit, *tables(AuditConfig)]),
    }
    pages |= {page: (ROOT / source).read_text("utf-8") for page, source in ROOT_PAGES.items()}
    for page, text in pages.items():
        files.append(File.generated(config, page, content=text))
    for uri in linked_files():
        files.append(File.generated(config, f"files/{uri}", abs_src_path=str(ROOT / uri)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links at where the site has their target."""
    folder = ROOT if page.file.src_uri in ROOT_PAGES else ROOT / "docs"
    return _LINK.sub(lambda link: f"]({site_uri(folder, link[1])}", markdown)


def linked_files() -> set[str]:
    """Files outside of docs/ that a page links, relative to the root."""
    pages = [ROOT / name for name in ROOT_PAGES.values()] + list((ROOT / "docs").glob("*.md"))
    links = ((page.parent, link[1]) for page in pages for link in _LINK.finditer(page.read_text()))
    uris = {site_uri(folder, link) for folder, link in links}
    return {uri.removeprefix("files/") for uri in uris if uri.startswith("files/")}


def site_uri(folder: Path, link: str) -> str:
    """A link that a page of ``folder`` has to a file of the repository, as one of the site."""
    target = (folder / link).resolve()
    for page, source in ROOT_PAGES.items():
        if target == ROOT / source:
            return page
    if target.is_relative_to(ROOT / "docs"):
        return target.relative_to(ROOT / "docs").as_posix()
    return f"files/{target.relative_to(ROOT).as_posix()}" if target.is_file() else link


def commands_page() -> str:
    """Every command with its options, as typer documents them."""
    from jobs.cli import app

    command = typer.main.get_command(app)
    text = typer.cli.get_docs_for_click(obj=command, ctx=typer.Context(command), name="legrad")
    return re.sub(r"^# `legrad`", "# Commands", text.strip())


def tables(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """A table of a model's keys, then those of the groups in it."""
    schema = model.model_json_schema()
    sections = griffe.Docstring(inspect.getdoc(model) or "", lineno=1).parse("google")
    meanings: dict[str, str] = {}
    for section in sections:
        if isinstance(section, griffe.DocstringSectionAttributes):
            for item in section.value:
                meanings |= dict.fromkeys(item.name.split(", "), item.description)
    rows = ["| key | type | default | meaning |", "|---|---|---|---|"]
    groups: list[str] = []
    for key, field in model.model_fields.items():
        default = ... if field.is_required() else field.get_default(call_default_factory=True)
        property_schema = schema["properties"][key]
        group = type(default) if isinstance(default, BaseModel) else field.annotation
        kinds = groups_of(group)
        if kinds:
            groups += [text for kind in kinds for text in tables(kind, f"{path}{key}.")]
            continue
        kind = described_type(property_schema, schema.get("$defs", {})).replace("|", "\\|")
        meaning = " ".join((field.description or meanings.get(key, "")).replace("``", "`").split())
        rows.append(f"| `{path}{key}` | {kind} | {described_default(default)} | {meaning} |")
    if path:
        yield f"## `{path[:-1]}`"
    yield sections[0].value if sections else ""
    yield "\n".join(rows)
    yield from groups


def groups_of(annotation: Any) -> list[type[BaseModel]]:
    """The models of settings that a key takes: one, one of several kinds, or none."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    plain = [get_args(kind)[0] if get_origin(kind) is Annotated else kind for kind in kinds]
    return [kind for kind in plain if inspect.isclass(kind) and issubclass(kind, BaseModel)]


def described_default(value: Any) -> str:
    """A default as YAML spells it."""
    if value is ...:
        return "required"
    text = str([str(item) for item in value] if isinstance(value, list | tuple) else value)
    return {"None": "none", "True": "`true`", "False": "`false`"}.get(text, f"`{text}`")


def described_type(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """A JSON schema in a few words."""
    several = schema.get("anyOf") or schema.get("oneOf")
    if several:
        kinds = [described_type(one, definitions) for one in several if one.get("type") != "null"]
        return " or ".join(kinds)
    if "$ref" in schema:
        return described_type(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    if "prefixItems" in schema:
        items = schema["prefixItems"]
        return f"{len(items)} of {described_type(items[0], definitions)}"
    if schema.get("type") == "array":
        return f"list of {described_type(schema.get('items') or {}, definitions)}"
    if schema.get("type") == "object":
        keys = ", ".join(f"`{key}`" for key in schema.get("properties", {}))
        return f"mapping with {keys}" if keys else "mapping"
    bounds = [f"{sign} {schema[key]:g}" for key, sign in _BOUNDS.items() if key in schema]
    kind = str(schema.get("type", "any"))
    return " ".join([_TYPES.get(kind, kind), *bounds])
