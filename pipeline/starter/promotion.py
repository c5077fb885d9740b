"""Write a configuration whose queries are cues that a discovery found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from legrad.queries.query import Role
from pipeline.config.class_names import class_queries
from pipeline.config.loading import load_config
from pipeline.discovery.words import plain_word
from pipeline.errors import UsageError
from pipeline.results.reproduce import model_config, source_config
from pipeline.results.results import Results
from pipeline.schema import OWN_LABEL, RESERVED

_HEAD = """\
# Made by `legrad discover {out}`: its cues are words that were found by looking at these images.
# They are tested on the half of the images on which they were not found:
#   legrad run {file}
#   legrad audit {output} --set 'discovered=[{names}]'
"""
_NO_LABELS = (
    "the run took its labels from a table of its own; name it as source.labels in {file}, "
    "because the results do not say where it is"
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
    """Write a configuration for the images, model and classes of a run, with new cues.

    Classes, baselines and decoys of the run stay, its cues are left out: their scores and maps are
    stored already, and `open_results` opens both outputs as one, joined on ``image_id``.

    Args:
        results: results of the run.
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
    kept = [query for query in results.queries if query.role is not Role.CUE]
    taken = {*(query.name for query in results.queries), *RESERVED, OWN_LABEL}
    cues = [query.name for query in class_queries(map(plain_word, phrases), taken)]
    output = f"{results.folder.uri.rstrip('/')}-discovered"
    restricted = {name: results.run["identity"].get(f"source.{name}") for name in _AGAIN}
    source = _plain(source_config(results.run, {}))
    settings = {
        "model": _plain(model_config(results.run)),
        "source": source | {name: value for name, value in restricted.items() if value is not None},
        "queries": [
            *(_plain(query) | {"name": query.name, "role": str(query.role)} for query in kept),
            *(
                {"name": name, "role": "cue", "prompts": phrase}
                for name, phrase in zip(cues, phrases, strict=True)
            ),
        ],
        "output": output,
    }
    head = _HEAD.format(out=results.folder.uri, file=config, output=output, names=", ".join(cues))
    text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=100)
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(f"{head}\n{text}", encoding="utf-8")
    labelled = results.run["identity"].get("source.labels")
    notes = (_NO_LABELS.format(file=config),) if labelled else ()
    load_config(config)
    return Promotion(config, tuple(cues), output, notes)


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
