"""Write and check the two files of a first configuration: ``run.yaml`` and ``queries.yaml``."""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from legrad.models.definition import FOLDER_PREFIX, MINI, is_location
from pipeline.config import MAX_QUERIES, ModelConfig, absolute, is_uri
from pipeline.config.loading import load_config, packaged_config
from pipeline.errors import UsageError
from pipeline.schema import OWN_LABEL, RESERVED
from pipeline.starter.naming import ClassQuery, class_queries
from pipeline.starter.survey import Survey, survey

QUERIES = "queries.yaml"
OUTPUT = "heatmaps"
_NAMED = re.compile(r"\s*- \{name: (\w+),")
_RUN = """\
# Made by `legrad init`: {summary}.
# Look it over, then
#   legrad run {file} --check        are the settings sound?
#   legrad run {file}                explain; the same command again continues
#   legrad scores {output} -q watermark

model:
{model}
  # resize: center_crop            # default squash: the whole picture, edges included
  # layers: 4                      # last blocks explained; default the model's own
  # precision: bf16                # faster on a GPU

source:
  format: {format}
  uri: {uri}
  # alias: my-data                 # begins every image id, and lets the data move{fields}

queries: {queries}

output: {output}                   # or s3://bucket/...
"""
_FIELDS = """
  # label_field: label             # of the sample's json, else its .cls member
  # caption_field: caption
  # carry: [source, license]       # json fields that become columns"""
_QUERIES = """\
# Made by `legrad init`. A class query stands for a label of the data, a cue for what may come with
# it; `prompts` say it in words, `templates` put the words into sentences.
queries:
{classes}

{cues}"""


@dataclass(frozen=True)
class Starter:
    """The result of `write_starter`.

    Attributes:
        config, queries: the files that were written.
        survey: what the data set consists of.
        classes, cues: number of class queries and of cues.
        notes: what the user should know.
    """

    config: Path
    queries: Path
    survey: Survey
    classes: int
    cues: int
    notes: tuple[str, ...]


def write_starter(uri: str, model: ModelConfig, config: Path, *, force: bool = False) -> Starter:
    """Write a configuration for a data set, and check it as `legrad run --check` does.

    Args:
        uri: folder of images, tar shards, or a glob or brace range of them.
        model: the model that the run will use.
        config: the YAML file to write; the file of queries is written beside it.
        force: whether existing files are overwritten.

    Raises:
        UsageError: a file exists already or would be inside the data, or there is no data.
    """
    queries = config.parent / QUERIES
    existing = [str(file) for file in (config, queries) if file.exists()]
    if existing and not force:
        raise UsageError(
            f"{', '.join(existing)}: exists already; --force overwrites it, -o names another file"
        )
    _refuse_inside(uri, config)
    weights = model.weights_file
    if weights and not is_uri(weights) and not Path(weights).expanduser().is_file():
        raise UsageError(f"--pretrained {weights}: no such file")
    data = survey(uri)
    starter = packaged_config("queries/starter.yaml").read_text(encoding="utf-8")
    chosen, cues, notes = _choose(data, starter)
    config.parent.mkdir(parents=True, exist_ok=True)
    plain = model.name == MINI
    lines = [_class_line(query, data.labels[query.label], plain=plain) for query in chosen]
    classes = "\n".join(lines) or "  # - {name: dog, role: class, label: dog, templates: imagenet}"
    queries.write_text(_QUERIES.format(classes=classes, cues=cues), encoding="utf-8")
    config.write_text(_run_text(data, model, config), encoding="utf-8")
    load_config(config)
    count = len(_NAMED.findall(cues)) - cues.count("role: baseline")
    return Starter(config, queries, data, len(chosen), count, (*data.notes, *notes))


def _refuse_inside(uri: str, config: Path) -> None:
    if is_uri(uri) or glob.has_magic(uri):
        return
    data, folder = Path(uri).expanduser().resolve(), config.resolve().parent
    if data.is_dir() and folder.is_relative_to(data):
        raise UsageError(
            f"{config} and the results would be inside the data {uri}: name a file outside it, "
            f"such as -o {data.parent / 'legrad' / 'run.yaml'}"
        )


def _choose(data: Survey, starter: str) -> tuple[list[ClassQuery], str, list[str]]:
    """The classes that fit into one run, the cues (as YAML) that are not classes, and notes."""
    lines = starter.splitlines()
    named = [match.group(1) for line in lines if (match := _NAMED.match(line))]
    room = MAX_QUERIES - len(named)
    kept = list(data.labels)[:room]
    notes = []
    if len(data.labels) > room:
        notes.append(
            f"{len(data.labels):,} labels, but a run has at most {MAX_QUERIES} queries: the {room} "
            "most frequent became classes; further runs for the others join on image_id"
        )
    columns = RESERVED | {OWN_LABEL}
    classes = {query.name for query in class_queries(kept, columns)}
    chosen = class_queries(sorted(kept), columns | (set(named) - classes))
    left = [line for line in lines if not ((m := _NAMED.match(line)) and m.group(1) in classes)]
    dropped = [name for name in named if name in classes]
    if dropped:
        notes.append(f"not used as cues because they are classes here: {', '.join(dropped)}")
    guessed = [query.label for query in chosen if query.guessed]
    if guessed:
        notes.append(
            f"labels without a meaning: {_listed(guessed)}. Write what they show into {QUERIES}; "
            "otherwise their scores mean nothing"
        )
    return chosen, "\n".join(left) + "\n", notes


def _listed(labels: Sequence[str]) -> str:
    rest = len(labels) - 3
    return ", ".join(labels[:3]) + (f" and {rest:,} more" if rest > 0 else "")


def _class_line(query: ClassQuery, count: int, *, plain: bool) -> str:
    values: dict[str, Any] = {"name": query.name, "role": "class"}
    if query.label != query.name:
        values["label"] = query.label
    if query.text != query.name.replace("_", " "):
        values["prompts"] = query.text
    if not plain:
        values["templates"] = "imagenet"
    hint = "  <- say what this is" if query.guessed else ""
    return f"  - {_flow(values)}  # {count:,} images{hint}"


def _run_text(data: Survey, model: ModelConfig, config: Path) -> str:
    settings = model.model_dump(exclude_defaults=True, mode="json")
    uris = [_portable(uri, config) for uri in data.uris]
    if model.weights_file:
        settings["pretrained"] = absolute(model.weights_file, Path.cwd())
    if is_location(model.name):
        settings["name"] = absolute(model.name.removeprefix(FOLDER_PREFIX), Path.cwd())
    return _RUN.format(
        summary=data.summary,
        file=config.name,
        model="\n".join(f"  {key}: {_flow(value)}" for key, value in settings.items()),
        format=data.format,
        uri=_flow(uris[0] if len(uris) == 1 else uris),
        fields=_FIELDS if data.format == "webdataset" else "",
        queries=QUERIES,
        output=OUTPUT,
    )


def _portable(uri: str, config: Path) -> str:
    """A path relative to the configuration if the data is below it, so that both can move."""
    path, folder = absolute(uri, Path.cwd()), f"{config.resolve().parent}/"
    return path if is_uri(path) else path.removeprefix(folder)


def _flow(value: Any) -> str:
    """A value as YAML on one line, quoted where necessary."""
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, sort_keys=False,
                          width=10_000)  # fmt: skip
    return text.strip()[1:-1]
