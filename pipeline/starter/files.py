"""The two files of a starter: ``run.yaml`` and ``queries.yaml``, written and checked."""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from legrad.models import catalog
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
    """What `write_starter` wrote.

    Attributes:
        config, queries: the files.
        survey: what the data is.
        classes, cues: how many class queries and cues they hold.
        notes: what the user should know.
    """

    config: Path
    queries: Path
    survey: Survey
    classes: int
    cues: int
    notes: tuple[str, ...]


def write_starter(uri: str, model: ModelConfig, config: Path, *, force: bool = False) -> Starter:
    """Look at the data and write a configuration for it that passes its own check.

    Args:
        uri: folder of images, tar shards, or a glob or brace range of them.
        model: which model the run will use.
        config: the YAML to write; the queries go beside it.
        force: overwrite.

    Raises:
        UsageError: a file is there already, would lie inside the data, or there is no data.
    """
    queries = config.parent / QUERIES
    there = [str(file) for file in (config, queries) if file.exists()]
    if there and not force:
        raise UsageError(f"{', '.join(there)}: there already; --force overwrites, -o names another")
    _refuse_inside(uri, config)
    weights = model.weights_file
    if weights and not is_uri(weights) and not Path(weights).expanduser().is_file():
        raise UsageError(f"--pretrained {weights}: no such file")
    found = survey(uri)
    starter = packaged_config("queries/starter.yaml").read_text(encoding="utf-8")
    chosen, cues, notes = _choose(found, starter)
    config.parent.mkdir(parents=True, exist_ok=True)
    plain = model.name == catalog.MINI
    lines = [_class_line(query, found.labels[query.label], plain) for query in chosen]
    classes = "\n".join(lines) or "  # - {name: dog, role: class, label: dog, templates: imagenet}"
    queries.write_text(_QUERIES.format(classes=classes, cues=cues), encoding="utf-8")
    config.write_text(_run_text(found, model, config), encoding="utf-8")
    load_config(config)
    count = len(_NAMED.findall(cues)) - cues.count("role: baseline")
    return Starter(config, queries, found, len(chosen), count, (*found.notes, *notes))


def _refuse_inside(uri: str, config: Path) -> None:
    if is_uri(uri) or glob.has_magic(uri):
        return
    data, folder = Path(uri).expanduser().resolve(), config.resolve().parent
    if data.is_dir() and folder.is_relative_to(data):
        raise UsageError(
            f"{config} would lie inside the data {uri}, and the results too: name a place outside, "
            f"such as -o {data.parent / 'legrad' / 'run.yaml'}"
        )


def _choose(found: Survey, starter: str) -> tuple[list[ClassQuery], str, list[str]]:
    """Classes that fit into one run, the starter's lines without those that are classes."""
    lines = starter.splitlines()
    named = [match.group(1) for line in lines if (match := _NAMED.match(line))]
    room = MAX_QUERIES - len(named)
    kept = list(found.labels)[:room]
    notes = []
    if len(found.labels) > room:
        notes.append(
            f"{len(found.labels):,} labels, but a run holds {MAX_QUERIES} queries: the {room} most "
            "frequent became classes; make further runs for the others, they join on image_id"
        )
    columns = RESERVED | {OWN_LABEL}
    own = {query.name for query in class_queries(kept, columns)}
    chosen = class_queries(sorted(kept), columns | (set(named) - own))
    left = [line for line in lines if not ((m := _NAMED.match(line)) and m.group(1) in own)]
    dropped = [name for name in named if name in own]
    if dropped:
        notes.append(f"left out of the cues, being classes here: {', '.join(dropped)}")
    guessed = [query.label for query in chosen if query.guessed]
    if guessed:
        notes.append(
            f"labels that say nothing: {_some(guessed)}. Write into {QUERIES} what they show, or "
            "their scores mean nothing"
        )
    return chosen, "\n".join(left) + "\n", notes


def _some(labels: Sequence[str]) -> str:
    rest = len(labels) - 3
    return ", ".join(labels[:3]) + (f" and {rest:,} more" if rest > 0 else "")


def _class_line(query: ClassQuery, count: int, plain: bool) -> str:
    values: dict[str, Any] = {"name": query.name, "role": "class"}
    if query.label != query.name:
        values["label"] = query.label
    if query.text != query.name.replace("_", " "):
        values["prompts"] = query.text
    if not plain:
        values["templates"] = "imagenet"
    hint = "  <- say what this is" if query.guessed else ""
    return f"  - {_flow(values)}  # {count:,} images{hint}"


def _run_text(found: Survey, model: ModelConfig, config: Path) -> str:
    given = model.model_dump(exclude_defaults=True, mode="json")
    places = [_portable(uri, config) for uri in found.uris]
    if model.weights_file:
        given["pretrained"] = absolute(model.weights_file, Path.cwd())
    return _RUN.format(
        summary=found.summary,
        file=config.name,
        model="\n".join(f"  {key}: {_flow(value)}" for key, value in given.items()),
        format=found.format,
        uri=_flow(places[0] if len(places) == 1 else places),
        fields=_FIELDS if found.format == "webdataset" else "",
        queries=QUERIES,
        output=OUTPUT,
    )


def _portable(uri: str, config: Path) -> str:
    """Relative to the configuration where the data lies below it, so that both can move."""
    place, folder = absolute(uri, Path.cwd()), f"{config.resolve().parent}/"
    return place.removeprefix(folder) if not is_uri(place) else place


def _flow(value: Any) -> str:
    """A value as YAML on one line, quoted where it must be."""
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, sort_keys=False,
                          width=10_000)  # fmt: skip
    return text.strip()[1:-1]
