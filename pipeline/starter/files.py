"""Write and check the two files of a first configuration: ``run.yaml`` and ``queries.yaml``.

A configuration of another name, ``b.yaml``, has ``b-queries.yaml`` and the output ``b-heatmaps``.
"""

import glob
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from legrad.models.definition import FOLDER_PREFIX, MINI, is_location
from pipeline.config import MAX_QUERIES, ModelConfig, RunConfig, absolute, is_uri
from pipeline.config.loading import packaged_config, validated
from pipeline.config.query_labels import ClassQuery, class_queries
from pipeline.errors import UsageError, counted
from pipeline.schema import RESERVED, STAND_INS
from pipeline.starter.survey import Survey, survey

CONFIG, QUERIES = "run.yaml", "queries.yaml"
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
{source}
  # alias: my-data                 # begins every image id, and lets the data move{fields}

queries: {queries}

output: {output:26} # or s3://bucket/...
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
        classes, cues, decoys: number of class queries, of cues and of decoys.
        notes: what the user should know.
    """

    config: Path
    queries: Path
    survey: Survey
    classes: int
    cues: int
    decoys: int
    notes: tuple[str, ...]


def write_starter(
    uri: str,
    model: ModelConfig,
    config: Path,
    fields: Mapping[str, str] | None = None,
    *,
    force: bool = False,
) -> Starter:
    """Write a configuration for a data set, and check it as `legrad run --check` does.

    Args:
        uri: folder of images, tar shards, Parquet files, lists, or a glob or brace range of them.
        model: the model that the run will use.
        config: the YAML file to write; the file of queries is written beside it.
        fields: settings of the source, such as ``label_field``; others are found out.
        force: whether existing files are overwritten.

    Raises:
        UsageError: a file exists already or would be inside the data, or there is no data.
    """
    queries = config.parent / _beside(config, QUERIES)
    if config.name == QUERIES:
        raise UsageError(f"-o {config}: this name is that of the file of queries; choose another")
    existing = [str(file) for file in (config, queries) if file.exists()]
    if existing and not force:
        raise UsageError(
            f"{', '.join(existing)}: exists already; --force overwrites it, -o names another file"
        )
    _refuse_inside(uri, config)
    weights = model.weights_file
    if weights and not is_uri(weights) and not Path(weights).expanduser().is_file():
        raise UsageError(f"--pretrained {weights}: no such file")
    data = survey(uri, fields)
    starter = packaged_config("queries/starter.yaml").read_text(encoding="utf-8")
    chosen, cues, notes = _choose(data, starter, queries.name)
    plain = model.name == MINI
    lines = [_class_line(query, data.labels[query.label], plain=plain) for query in chosen]
    classes = "\n".join(lines) or "  # - {name: dog, role: class, label: dog, templates: imagenet}"
    texts = {
        queries: _QUERIES.format(classes=classes, cues=cues),
        config: _run_text(data, model, config),
    }
    _check(texts[config], texts[queries], config)
    _write(texts)
    counts = len(chosen), cues.count("role: cue"), cues.count("role: decoy")
    return Starter(config, queries, data, *counts, (*data.notes, *notes))


def _beside(config: Path, name: str) -> str:
    """Name of a file or folder beside a configuration, which others beside it do not share."""
    return name if config.name == CONFIG else f"{config.stem}-{name}"


def _check(run_text: str, queries_text: str, config: Path) -> None:
    """Check the texts as `legrad run --check` checks the files, before anything is written."""
    settings = yaml.safe_load(run_text)
    settings["queries"] = yaml.safe_load(queries_text)["queries"]
    validated(RunConfig, settings, str(config), config.resolve().parent)


def _write(texts: dict[Path, str]) -> None:
    """Write all files, or none.

    Raises:
        UsageError: a file cannot be written.
    """
    drafts = {file: file.with_name(f".{file.name}.draft") for file in texts}
    try:
        for file, text in texts.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            drafts[file].write_text(text, encoding="utf-8")
        for file, draft in drafts.items():
            draft.replace(file)
    except OSError as error:
        raise UsageError(f"{', '.join(map(str, texts))}: cannot be written: {error}") from error
    finally:
        for draft in drafts.values():
            with suppress(OSError):
                draft.unlink(missing_ok=True)


def _refuse_inside(uri: str, config: Path) -> None:
    if is_uri(uri) or glob.has_magic(uri):
        return
    data, folder = Path(uri).expanduser().resolve(), config.resolve().parent
    if data.is_dir() and folder.is_relative_to(data):
        raise UsageError(
            f"{config} and the results would be inside the data {uri}: name a file outside it, "
            f"such as -o {data.parent / 'legrad' / 'run.yaml'}"
        )


def _choose(data: Survey, starter: str, queries: str) -> tuple[list[ClassQuery], str, list[str]]:
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
    columns = RESERVED | set(STAND_INS)
    classes = {query.name for query in class_queries(kept, columns)}
    chosen = class_queries(sorted(kept), columns | (set(named) - classes))
    left = [line for line in lines if not ((m := _NAMED.match(line)) and m.group(1) in classes)]
    dropped = [name for name in named if name in classes]
    if dropped:
        notes.append(
            f"left out as cues or decoys because they are classes here: {', '.join(dropped)}"
        )
    guessed = [query.label for query in chosen if query.guessed]
    if guessed:
        notes.append(
            f"labels without a meaning: {_listed(guessed)}. Write what they show into {queries}; "
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
    return f"  - {_flow(values)}  # {counted(count, 'image')}{hint}"


def _run_text(data: Survey, model: ModelConfig, config: Path) -> str:
    settings = model.model_dump(exclude_defaults=True, mode="json")
    source = {key: _portable(key, value, config) for key, value in data.source.items()}
    if model.weights_file:
        settings["pretrained"] = absolute(model.weights_file, Path.cwd())
    if is_location(model.name):
        settings["name"] = absolute(model.name.removeprefix(FOLDER_PREFIX), Path.cwd())
    return _RUN.format(
        summary=data.summary,
        file=config.name,
        model="\n".join(f"  {key}: {_flow(value)}" for key, value in settings.items()),
        source="\n".join(f"  {key}: {_flow(value)}" for key, value in source.items()),
        fields=_FIELDS if data.format == "webdataset" else "",
        queries=_flow(_beside(config, QUERIES)),
        output=_flow(_beside(config, OUTPUT)),
    )


def _portable(key: str, value: Any, config: Path) -> Any:
    """A setting with its paths relative to the configuration where the data is below it.

    Both can then move together.
    """
    if isinstance(value, dict):
        return {name: _portable("uri" if key == "uri" else name, each, config)
                for name, each in value.items()}  # fmt: skip
    if isinstance(value, list):
        return [_portable(key, each, config) for each in value]
    if key not in ("uri", "image_root"):
        return value
    path, folder = absolute(value, Path.cwd()), f"{config.resolve().parent}/"
    return path if is_uri(path) else path.removeprefix(folder)


def _flow(value: Any) -> str:
    """A value as YAML on one line, quoted where necessary."""
    text = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, sort_keys=False,
                          width=10_000)  # fmt: skip
    return text.strip()[1:-1]
