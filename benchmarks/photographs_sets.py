"""Photographs with cues planted at a known strength: the data set, its run, and the truth."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray
from PIL import Image

from benchmarks.photographs_model import ARCHITECTURE, WEIGHTS
from benchmarks.photographs_world import Photographs, pasted
from legrad.mini.world import OVERLAYS
from pipeline import flow
from pipeline.config.loading import load_config
from training.captions import named

SHARES = (0.85, 0.7, 0.5, 0.4, 0.3)
"""Share of a class's photographs with the cue planted in it, for five cues."""
ELSEWHERE = 0.05
DECOYS = 2
"""Overlays that no photograph has."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Planting:
    """What a data set holds.

    Attributes:
        seed: decides everything.
        planted: cue -> its class and the share of the class's photographs that have it.
        cues: overlays that the photographs have, with `ELSEWHERE` where they are not planted.
        decoys: overlays that none has.
    """

    seed: int
    planted: Mapping[str, tuple[str, float]]
    cues: tuple[str, ...]
    decoys: tuple[str, ...]

    @classmethod
    def drawn(cls, seed: int, classes: tuple[str, ...]) -> "Planting":
        """Cues and their classes at random."""
        rng = np.random.default_rng([seed, 1])
        overlays = [str(name) for name in rng.permutation(OVERLAYS)]
        hosts = [str(name) for name in rng.permutation(classes)]
        pairs = zip(overlays, hosts, SHARES, strict=False)
        planted = {cue: (host, share) for cue, host, share in pairs}
        return cls(seed, planted, tuple(overlays[:-DECOYS]), tuple(overlays[-DECOYS:]))

    def share(self, cls: str, cue: str) -> float:
        """Probability that a photograph of a class has a cue."""
        if cue in self.decoys:
            return 0.0
        host, share = self.planted.get(cue, ("", 0.0))
        return share if host == cls else ELSEWHERE

    def has(self, row: int, cls: str) -> list[str]:
        """Cues of the photograph with this number."""
        chances = np.random.default_rng([self.seed, 2, row]).random(len(self.cues))
        pairs = zip(self.cues, chances, strict=True)
        return [cue for cue, chance in pairs if chance < self.share(cls, cue)]

    def image(
        self, row: int, pixels: NDArray[np.uint8], cls: str
    ) -> tuple[Image.Image, dict[str, Mask]]:
        """The picture with its cues, and the ink of each."""
        return pasted(pixels, self.has(row, cls), np.random.default_rng([self.seed, 3, row]))


def data_file(cache: Path, seed: int, count: int) -> Path:
    """Where the data set of a seed with so many photographs is kept."""
    return cache / f"data-{count}-{seed}" / "photographs.parquet"


def write_set(planting: Planting, photographs: Photographs, file: Path) -> None:
    """Write the data set as one Parquet file with the columns image, label and has_<cue>."""
    records = []
    for row, (pixels, code) in enumerate(zip(photographs.pixels, photographs.labels, strict=True)):
        cls = photographs.classes[code]
        image, ink = planting.image(row, pixels, cls)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=92)
        has = {f"has_{cue}": cue in ink for cue in OVERLAYS}
        records.append({"image": buffer.getvalue(), "label": cls, "key": f"{row:06d}", **has})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), file, row_group_size=500)


def write_settings(
    roles: Mapping[str, tuple[str, ...]], model: Path, data: Path, out: Path
) -> Path:
    """Write the settings of a run as a user would, into a folder beside its output.

    Args:
        roles: role -> names of the queries.
        model: folder of a trained model.
        data: file of `write_set`.
        out: output folder.

    Returns:
        The file for `legrad run`.
    """
    queries = [
        {"name": name, "role": role, "prompts": named(name)}
        for role, names in roles.items()
        for name in names
    ]
    settings = {
        "model": {"name": str(model / ARCHITECTURE), "pretrained": str(model / WEIGHTS)},
        "source": {
            "format": "parquet",
            "uri": str(data),
            "alias": "photographs",
            "image_field": "image",
            "key_field": "key",
            "carry": {f"has_{cue}": "bool" for cue in OVERLAYS},
        },
        "queries": "queries.yaml",
        "output": str(out),
    }
    folder = out.with_name(f"{out.name}-settings")
    folder.mkdir(exist_ok=True)
    (folder / "queries.yaml").write_text(yaml.safe_dump({"templates": "none", "queries": queries}))
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(settings, sort_keys=False))
    return file


def run(settings: Path) -> None:
    """What `legrad run` does; a finished run stays."""
    summary = flow.run(load_config(str(settings)))
    print(json.dumps({"output": summary.output, "statuses": summary.statuses}), flush=True)


def truth(table: pd.DataFrame, cues: tuple[str, ...]) -> pd.DataFrame:
    """Share of every class with every cue, and that elsewhere; one row per pair.

    Args:
        table: ``label`` and ``has_<cue>`` of all photographs.
    """
    rows = []
    for cue in cues:
        has = table[f"has_{cue}"].astype(bool)
        for cls in sorted(table["label"].unique()):
            inside = table["label"] == cls
            rows.append((cls, cue, float(has[inside].mean()), float(has[~inside].mean())))
    return pd.DataFrame(rows, columns=["class", "cue", "true_share", "true_elsewhere"])
