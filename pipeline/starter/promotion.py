"""Write a configuration for the images and model of a run, with new cues."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from safetensors.numpy import save_file

from pipeline.config import RunConfig
from pipeline.config.loading import load_config, validated
from pipeline.config.query_labels import class_queries
from pipeline.discovery.words import WITHOUT_WORD, plain_word
from pipeline.errors import UsageError
from pipeline.results.joined_run import JoinedRun
from pipeline.results.reproduce import model_config, source_config
from pipeline.results.results import Results
from pipeline.runs.manifest import RunFolder
from pipeline.schema import RESERVED, STAND_INS
from pipeline.storage.location import Location

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
    results: Results,
    candidates: pd.DataFrame,
    config: Path,
    directions: Mapping[str, NDArray[np.float32]],
    *,
    force: bool = False,
) -> Promotion:
    """Write the configuration of `next_run` with the candidates of a discovery as cues.

    Args:
        results: results of the run, or of several that `as_one` joined.
        candidates: rows with ``word`` and ``kind``, see `pipeline.discovery.Discovery`.
        config: the YAML file to write; directions of things without a word go into a file beside
            it that ends in .safetensors.
        directions: word, or name of a thing or place -> (E,).
        force: whether an existing file is overwritten.

    Raises:
        UsageError: the file exists, or there is no candidate.
    """
    if config.exists() and not force:
        raise UsageError(f"{config}: exists already; --force overwrites it")
    words = list(dict.fromkeys(map(str, candidates["word"])))
    if not words:
        raise UsageError("nothing was found that could become a query; see --word")
    cues = query_names(results, map(plain_word, words))
    things = set(candidates.loc[candidates["kind"].isin(WITHOUT_WORD), "word"])
    vectors = config.with_suffix(".safetensors")
    outs, output = outputs(results, "discovered")
    made = [
        {"name": name}
        | ({"vector": f"{vectors.name}#{name}"} if word in things else {"prompts": word})
        for name, word in zip(cues, words, strict=True)
    ]
    head = _HEAD.format(
        out=results.folder.uri, outs=outs, file=config, output=output, names=", ".join(cues)
    )
    text = next_run(results, made, output)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"{head}\n{text}", encoding="utf-8")
    if things:
        named = zip(cues, words, strict=True)
        save_file({name: directions[word] for name, word in named if word in things}, vectors)
    load_config(config)
    return Promotion(config, tuple(cues), output, notes(results, str(config)))


def query_names(results: Results, titles: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Names for new queries that neither the run's queries nor its columns nor ``taken`` have."""
    known = {*(query.name for query in results.queries), *RESERVED, *STAND_INS, *taken}
    return [query.name for query in class_queries(titles, known)]


def next_run(results: Results, cues: Sequence[Mapping[str, Any]], output: str) -> str:
    """Settings (YAML) for the images and model of a run, with new cues as its only queries.

    What the run has stored is not computed again: an audit of both outputs joins them.

    Args:
        results: results of the run, or of several that `as_one` joined.
        cues: the new cues, each with ``name`` and what defines it, such as ``prompts``.
        output: output of the new run.

    Raises:
        UsageError: a cue is no valid query.
    """
    restricted = {name: results.run["identity"].get(f"source.{name}") for name in _AGAIN}
    source = _plain(source_config(results.run, {}).model_copy(update={"carry": {}}))
    settings = {
        "model": _plain(model_config(results.run)),
        "source": source | {name: value for name, value in restricted.items() if value is not None},
        "queries": [{"role": "cue", **cue} for cue in cues],
        "store": {"embeddings": False, "captions": False, "properties": False},
        "output": output,
    }
    validated(RunConfig, settings, "the next run")
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)


def notes(results: Results, file: str) -> tuple[str, ...]:
    """What the user has to do before the run of `next_run` in a file can start."""
    identity = results.run["identity"]
    drawn = identity.get("source.labels") and identity.get("source.sample")
    return (_NO_LABELS.format(file=file),) if drawn else ()


def outputs(results: Results, ending: str) -> tuple[str, str]:
    """The outputs that are open, as a command takes them, and a new one beside the first.

    The new one is the first without a run: ``OUT-next``, ``OUT-next-2``, and so on.
    """
    (run,) = results.runs
    earlier = [one.folder.uri for one in (run.runs if isinstance(run, JoinedRun) else (run,))]
    root = results.folder.root
    names = (f"-{ending}-{number}" if number > 1 else f"-{ending}" for number in count(1))
    folders = ((name, RunFolder(Location(root.fs, f"{root.path}{name}"), "")) for name in names)
    new = next(name for name, folder in folders if not folder.manifest.exists())
    return shlex.join(earlier), f"{results.folder.uri.rstrip('/')}{new}"


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
