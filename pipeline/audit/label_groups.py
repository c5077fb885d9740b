"""The images that can be labelled, and the design of what was drawn from them.

A design is stored with the run as `DESIGN`: the seed, and for every cue and group the strata and
how many images were drawn. A later draw continues it, and an audit reads from it which labelled
images are a random sample. Images that were labelled but not drawn count as picked.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.audit.class_members import Members
from pipeline.audit.inference import Array
from pipeline.audit.label_design import (
    COLUMNS,
    ELSEWHERE,
    Centring,
    Queue,
    ScoreStrata,
    draw,
    merge_labels,
    shuffle_keys,
)
from pipeline.audit.label_predictor import FOLDS
from pipeline.audit.scores import Population, Readable, batches
from pipeline.audit.split import confirming
from pipeline.errors import UsageError
from pipeline.storage.location import Location, Options, open_location
from pipeline.storage.tables import read_table

DESIGN = "label_design.json"
LABELS = "labels.csv"
"""Name of a file of answers, and of that one which the viewer keeps beside the design."""
_VERSION = 1


@dataclass(frozen=True)
class DrawnGroup:
    """What was drawn of a group for a cue.

    Attributes:
        strata: how the group is cut.
        drawn: images that were drawn, the first of the group's queue.
    """

    strata: ScoreStrata
    drawn: int


@dataclass(frozen=True)
class Design:
    """Everything that was drawn from a run.

    Attributes:
        seed: random seed that decided the order of the images.
        groups: (cue, group) -> what was drawn; a group is a class or `ELSEWHERE`.
    """

    seed: int
    groups: Mapping[tuple[str, str], DrawnGroup]

    @classmethod
    def read(cls, locations: Sequence[Location], seed: int) -> "Design":
        """Read the first file that exists; an empty design with a seed where there is none.

        Raises:
            UsageError: the file is not a design that this version reads.
        """
        for location in locations:
            if location.exists():
                return cls._parsed(location.read(), location.path)
        return cls(seed, {})

    @classmethod
    def _parsed(cls, data: bytes, path: str) -> "Design":
        try:
            values = json.loads(data)
            if values["version"] != _VERSION:
                raise UsageError(
                    f"{path}: version {values['version']} of a design of labels; expected "
                    f"{_VERSION}. Use the version of legrad-audit that drew the images."
                )
            groups = {
                (g["cue"], g["group"]): DrawnGroup(
                    ScoreStrata(tuple(g["cuts"]), tuple(g["sizes"])), int(g["drawn"])
                )
                for g in values["groups"]
            }
            return cls(int(values["seed"]), groups)
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{path}: expected a design of labels: {error!r}") from error

    def to_json(self) -> bytes:
        """Content of the file."""
        groups = [
            {
                "cue": cue,
                "group": group,
                "cuts": drawn.strata.cuts,
                "sizes": drawn.strata.sizes,
                "drawn": drawn.drawn,
            }
            for (cue, group), drawn in sorted(self.groups.items())
        ]
        values = {"version": _VERSION, "seed": self.seed, "groups": groups}
        return json.dumps(values, indent=1).encode()

    def drawing(self, cue: str, group: str, strata: ScoreStrata, labels: int) -> "Design":
        """The design after ``labels`` images of a group are drawn.

        Strata that it has stay, unless the group has another number of images by now.
        """
        before = self.groups.get((cue, group))
        if before is None or sum(before.strata.sizes) != sum(strata.sizes):
            before = DrawnGroup(strata, 0)
        after = replace(before, drawn=max(before.drawn, labels))
        return replace(self, groups={**self.groups, (cue, group): after})


@dataclass(frozen=True)
class LabelImages:
    """The n explained images with a label, and their scores of some cues.

    Attributes:
        ids: their image ids.
        codes: (n,) the class that each is scored in: its only one, or the rarest of several.
        members: all classes of each.
        keys: (n,) numbers that put them into random order.
        centring: cue -> how its scores become scores within classes.
        scores: cue -> (n,) scores within classes.
        half: (n,) the half on which cues are tested that were found by looking at the images.
        halved: these cues.
    """

    ids: pa.ChunkedArray
    codes: NDArray[np.int64]
    members: Members
    keys: NDArray[np.uint64]
    centring: Mapping[str, Centring]
    scores: Mapping[str, Array]
    half: NDArray[np.bool_]
    halved: frozenset[str]

    @classmethod
    def read(
        cls,
        results: Readable,
        population: Population,
        cues: Sequence[str],
        seed: int,
        halved: frozenset[str] = frozenset(),
    ) -> "LabelImages":
        """Read ids, labels and scores in one pass.

        Raises:
            UsageError: no image has a class.
        """
        ids, codes, keys, half = [], [], [], []
        member_rows, member_codes, count = [], [], 0
        raw: dict[str, list[Array]] = {cue: [] for cue in cues}
        for batch in batches(results, population, cues, ["image_id"]):
            names = batch.table["image_id"].to_pylist()
            ids.append(batch.table["image_id"].combine_chunks())
            codes.append(batch.codes)
            member_rows.append(batch.members.rows + count)
            member_codes.append(batch.members.codes)
            count += len(batch.codes)
            keys.append(shuffle_keys(names, seed))
            half.append(confirming(names) if halved else np.ones(len(names), bool))
            for cue in cues:
                raw[cue].append(batch.scores(cue))
        if not codes:
            raise UsageError("labels: no explained image has a class, so there is nothing to label")
        code = np.concatenate(codes)
        whole = {cue: np.concatenate(values) for cue, values in raw.items()}
        centring = {cue: Centring.of(values, code) for cue, values in whole.items()}
        scores = {cue: centring[cue].centre(values, code) for cue, values in whole.items()}
        return cls(
            pa.chunked_array(ids),
            code,
            Members(np.concatenate(member_rows), np.concatenate(member_codes)),
            np.concatenate(keys),
            centring,
            scores,
            np.concatenate(half),
            halved,
        )

    def rows(self, cue: str, code: int | None) -> NDArray[np.int64]:
        """Images of a class, or of all classes (None), that count for a cue."""
        inside = np.ones(len(self.codes), bool) if code is None else self.of_class(code)
        return np.flatnonzero(inside & self.half if cue in self.halved else inside)

    def of_class(self, code: int) -> NDArray[np.bool_]:
        """(n,) whether each image is in a class."""
        return self.members.of_class(code, len(self.codes))

    def queue(self, cue: str, code: int | None, strata: ScoreStrata, labels: int) -> Queue:
        """The first ``labels`` images of a group, as row numbers of all images."""
        rows = self.rows(cue, code)
        shuffled = np.argsort(self.keys[rows], kind="stable").astype(np.int64)
        queue = draw(shuffled, self.scores[cue][rows], strata, labels, FOLDS)
        return replace(queue, rows=rows[queue.rows])

    def find(self, image_ids: Sequence[str]) -> NDArray[np.int64]:
        """(m,) row number of each id; -1 for an image that is not among these."""
        wanted = pd.Index(image_ids)
        unique = wanted.unique()
        places = pc.index_in(self.ids, value_set=pa.array(unique, self.ids.type))
        positions = places.combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False)
        rows = np.full(len(unique), -1, np.int64)
        known = positions >= 0
        rows[positions[known]] = np.flatnonzero(known)
        result: NDArray[np.int64] = rows[unique.get_indexer(wanted)]
        return result


@dataclass(frozen=True)
class Labels:
    """People's answers, and the design that the images were drawn by.

    Attributes:
        answers: one row per image, cue, group and person, see `merge_labels`.
        design: the stored design of the run.
        files: the files that the answers came from.
    """

    answers: pd.DataFrame
    design: Design
    files: tuple[str, ...]


def read_labels(uris: Sequence[str], options: Options | None = None) -> pd.DataFrame:
    """Read and join files of labels; answers without a name are those of their file.

    Raises:
        UsageError: a file is missing, is not a table of labels, or holds no answer.
    """
    frames = []
    for uri in uris:
        frame = read_table(uri, COLUMNS, options)
        frame["who"] = frame["who"].where(frame["who"].str.strip() != "", uri.rsplit("/", 1)[-1])
        frames.append(frame)
    merged = merge_labels(frames)
    if merged.empty:
        raise UsageError(f"{', '.join(uris)}: no image has an answer yet; open the page and label")
    return merged


def group_code(population: Population, group: str) -> int | None:
    """Code of a group's class; None for `ELSEWHERE`.

    Raises:
        UsageError: there is no such class.
    """
    if group == ELSEWHERE:
        return None
    code = population.index.get(group, len(population.classes))
    if code >= population.audited:
        raise UsageError(f"labels: no class {group!r} is audited in this run")
    return code


def write_design(folder: Location, design: Design) -> None:
    """Store the design with a run.

    Args:
        folder: output folder of the run.

    Raises:
        UsageError: it cannot be written to.
    """
    folder.child("_run", DESIGN).write(design.to_json())


def stored_design(folder: Location, beside: Sequence[str], seed: int) -> Design:
    """The design of a run, or the one beside some files where the run's folder has none.

    Args:
        folder: output folder of the run.
        beside: files of labels.
        seed: random seed of a new design.
    """
    folders = list(dict.fromkeys(uri.rpartition("/")[0] or "." for uri in beside))
    others = [open_location(f"{name}/{DESIGN}") for name in folders]
    return Design.read([folder.child("_run", DESIGN), *others], seed)
