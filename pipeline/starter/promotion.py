"""Write a configuration whose queries are cues that a discovery found."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from pipeline.config.loading import load_config
from pipeline.discovery.words import plain_word
from pipeline.errors import UsageError
from pipeline.results.joined_run import JoinedRun
from pipeline.results.reproduce import model_config, source_config
from pipeline.results.results import Results
from pipeline.schema import OWN_LABEL, RESERVED
from pipeline.starter.naming import class_queries

_HEAD = """\
# Made by `legrad discover {out}`: its cues were found by looking at these images. Only their
# scores and maps are computed; the audit joins them to the earlier run, and tests them on the half
# of the images on which they were not found:
#   legrad run {file}
#   legrad audit {outs} {output} --set 'discovered=[{names}]'
"""
_NO_LABELS = (
    "the run drew a sample of each label, from a table of labels; name the table as source.labels "
    "in {file}, because the results do not say where it is"
)
_AGAIN = ("shards", "sample", "limit")
"""Settings of a source that restrict the images."""


@dataclass(frozen=True)
class Promotion:
    """What was written.

    Attributes:
        config: the file.
        cues: names of the new queries.
        output: output of the run that it describes.
        notes: what the user has to do.
    """

    config: Path
    cues: tuple[str, ...]
    output: str
    notes: tuple[str, ...]


def write_queries(
    results: Results, candidates: pd.DataFrame, config: Path, *, force: bool = False
) -> Promotion:
    """Write a configuration for the images and model of a run, with new cues as its only queries.

    What the run has stored is not computed again: an audit of both outputs joins them.

    Args:
        results: results of the run, or of several that `as_one` joined.
        candidates: rows with ``word``, see `pipeline.discovery.Discovery`.
        config: the YAML file to write.
        force: whether an existing file is overwritten.

    Raises:
        UsageError: the file exists, or there is no candidate.
    """
    if config.exists() and not force:
        raise UsageError(f"{config}: exists already; --force overwrites it")
    phrases = list(dict.fromkeys(map(str, candidates["word"])))
    if not phrases:
        raise UsageError("nothing was found that could become a query; see --word")
    taken = {*(query.name for query in results.queries), *RESERVED, OWN_LABEL}
    cues = [query.name for query in class_queries(map(plain_word, phrases), taken)]
    outs, output = _outputs(results)
    restricted = {name: results.run["identity"].get(f"source.{name}") for name in _AGAIN}
    source = _plain(source_config(results.run, {}).model_copy(update={"carry": {}}))
    settings = {
        "model": _plain(model_config(results.run)),
        "source": source | {name: value for name, value in restricted.items() if value is not None},
        "queries": [
            {"name": name, "role": "cue", "prompts": phrase}
            for name, phrase in zip(cues, phrases, strict=True)
        ],
        "store": {"embeddings": False, "captions": False, "properties": False},
        "output": output,
    }
    head = _HEAD.format(
        out=results.folder.uri, outs=outs, file=config, output=output, names=", ".join(cues)
    )
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"{head}\n{text}", encoding="utf-8")
    drawn = results.run["identity"].get("source.labels") and restricted["sample"]
    notes = (_NO_LABELS.format(file=config),) if drawn else ()
    load_config(config)
    return Promotion(config, tuple(cues), output, notes)


def _outputs(results: Results) -> tuple[str, str]:
    """The outputs that are open, as a command takes them, and a new one beside the first."""
    (run,) = results.runs
    earlier = [one.folder.uri for one in (run.runs if isinstance(run, JoinedRun) else (run,))]
    number = "" if len(earlier) == 1 else f"-{len(earlier)}"
    return shlex.join(earlier), f"{results.folder.uri.rstrip('/')}-discovered{number}"


def chosen(candidates: pd.DataFrame, words: Sequence[str]) -> pd.DataFrame:
    """The candidates with some words.

    Raises:
        UsageError: a word is none of them.
    """
    unknown = [word for word in words if word not in set(candidates["word"])]
    if unknown:
        raise UsageError(
            f"--word {unknown[0]!r}: no candidate; expected one of "
            f"{', '.join(dict.fromkeys(candidates['word']))}"
        )
    return candidates[candidates["word"].isin(list(words))]


def _plain(settings: Any) -> dict[str, Any]:
    values: dict[str, Any] = settings.model_dump(exclude_defaults=True, mode="json")
    return values
