"""Rows of the demo's sheet: the first image of every planted cue, and images without one."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from legrad.mini.world import SceneSpec, render
from pipeline.config import RunConfig
from pipeline.demo.dataset import PLANTED, SIDE, Kind, Planted, example
from pipeline.report.sheet import SheetRow

_BASELINE = "an_image"
_CONTROLS = (("fresh fish", "watermark"), ("house", "brick"))
"""(label, cue): an image without the cue, and an image of a clean label on that background."""


def planted_rows(config: RunConfig, images: pd.DataFrame, seed: int) -> list[SheetRow]:
    """Choose images by number, not by looks: the first of its label that has the cue.

    Args:
        config: settings of the demo's run.
        images: rows of its results, by image_id, with ``label``, ``key`` and ``status``.
        seed: seed of the demo's data.

    Returns:
        One row per planted cue, then the controls; a small data set may lack some.
    """
    usable = images[images["status"] == "ok"].sort_values("key")
    rows = [_row(config, usable, seed, p.label, p.cue, True, _note(p)) for p in PLANTED]
    label, cue = _CONTROLS[0]
    rows.append(_row(config, usable, seed, label, cue, False, f"no {cue} here"))
    label, cue = _CONTROLS[1]
    rows.append(_row(config, usable, seed, label, cue, True, "nothing planted"))
    return [row for row in rows if row is not None]


def _note(planted: Planted) -> str:
    text = {
        Kind.DECISIVE: "the only difference",
        Kind.UNNEEDED: "not needed",
        Kind.CONTEXT: "its natural place",
    }[planted.kind]
    return f"{planted.cue} in {planted.strength:.0%}:\n{text}"


def _row(
    config: RunConfig,
    images: pd.DataFrame,
    seed: int,
    label: str,
    cue: str,
    present: bool,
    note: str,
) -> SheetRow | None:
    for image_id, key in images.loc[images["label"] == label, "key"].items():
        spec = example(seed, int(key)).spec
        if (cue in (spec.background, *spec.overlays)) == present:
            queries = (config.labels[label], cue, _BASELINE)
            return SheetRow(str(image_id), queries, note, _outlines(spec, queries))
    return None


def _outlines(spec: SceneSpec, queries: Sequence[str]) -> dict[str, NDArray[np.bool_]]:
    """True masks of the object, under the class query, and of the cue if it is an overlay."""
    scene = render(spec, SIDE)
    class_query, cue, _ = queries
    masks = {class_query: scene.object_mask}
    return masks | ({cue: scene.overlay_masks[cue]} if cue in scene.overlay_masks else {})
