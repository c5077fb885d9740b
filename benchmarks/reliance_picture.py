"""The picture of reliance: ``python -m benchmarks.reliance_picture OUT docs/reliance.webp``.

Of the demo's two labels that only a watermark tells apart: where the text looks, where a probe on
the labels looks, and what deletion and insertion of the watermark do to that probe.
"""

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from PIL import Image

from pipeline import Audit
from pipeline.reliance.edits import Kind
from pipeline.reliance.probe_maps import probe_query

CLS, CUE, TEXT = "frozen fish", "watermark", "frozen_fish"
_ROWS = 2


def main() -> None:
    """Draw it from an audited demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="output of the demo's run")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    audit = Audit.from_results(args.out, settings={"depth": "reliance"}, tell=print)
    row = audit.pair(CLS, CUE).finding
    results = audit.reliance.probe_maps()
    every = audit.reliance.examples(CLS, CUE, count=60, side=288)
    query = probe_query(CLS)
    ids = [one.image_id for one in every if one.kind is Kind.DELETED]
    seen = dict(zip(ids, ~np.isnan(results.maps(query, ids)[1]).any(axis=(1, 2)), strict=True))
    deleted = [e for e in every if e.kind is Kind.DELETED and seen[e.image_id]][:_ROWS]
    inserted = [e for e in every if e.kind is Kind.INSERTED]
    figure, axes = plt.subplots(_ROWS + 1, 5, figsize=(11, 2.5 * (_ROWS + 1) + 0.5))
    titles = ["a frozen fish", 'text "a fish"', "the probe", "watermark deleted", "or elsewhere"]
    for number, one in enumerate(deleted):
        heat = [results.overlay(one.image_id, name) for name in (TEXT, query)]
        pictures = [one.before, *heat, one.after, one.control]
        changes = [None, None, None, one.change, one.control_change]
        _row(axes[number], pictures, changes, titles if not number else None)
    one, two = inserted[0], inserted[-1]
    titles = ["a fresh fish", "watermark pasted in", "or another crop", "a fresh fish", "watermark"]
    pictures = [one.before, one.after, one.control, two.before, two.after]
    _row(axes[-1], pictures, [None, one.change, one.control_change, None, two.change], titles)
    effect, low, high = (row[f"probe_reliance__{name}"] for name in ("effect", "low", "high"))
    figure.suptitle(
        f"{effect:.0%} ({low:.0%} to {high:.0%}) of the probe's evidence for a frozen fish, "
        "against a fresh one, is the watermark",
        fontsize=13,
    )
    figure.tight_layout(rect=(0, 0.01, 1, 0.98), h_pad=2.2)
    figure.savefig(args.picture, dpi=80)
    print(args.picture)


def _row(
    axes: np.ndarray,
    pictures: list[Image.Image],
    changes: list[float | None],
    titles: list[str] | None,
) -> None:
    for number, (place, picture, change) in enumerate(zip(axes, pictures, changes, strict=True)):
        _cell(place, picture, "" if change is None else f"probe {change:+.0%}")
        if titles is not None:
            place.set_title(titles[number], fontsize=11)


def _cell(place: Axes, picture: Image.Image, text: str) -> None:
    place.set_axis_off()
    place.imshow(picture.convert("RGB").resize((288, 288)))
    place.text(0.5, -0.03, text, ha="center", va="top", transform=place.transAxes, fontsize=11)


if __name__ == "__main__":
    main()
