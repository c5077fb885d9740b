"""The picture of reliance: ``python -m benchmarks.reliance_picture OUT docs/reliance.png``.

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
from pipeline.audit.reliance.examples import EditExample, examples
from pipeline.audit.reliance.probe_maps import probe_maps, probe_query
from pipeline.audit.reliance.task import Kind

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
    results = probe_maps(audit.reliance)
    every = examples(audit.reliance, CLS, CUE, count=60, side=288)
    query = probe_query(CLS)
    ids = [one.image_id for one in every if one.kind is Kind.DELETED]
    seen = dict(zip(ids, ~np.isnan(results.maps(query, ids)[1]).any(axis=(1, 2)), strict=True))
    deleted = [e for e in every if e.kind is Kind.DELETED and seen[e.image_id]][:_ROWS]
    inserted = [e for e in every if e.kind is Kind.INSERTED][:_ROWS]
    figure, axes = plt.subplots(2 * _ROWS, 5, figsize=(11, 4 * _ROWS + 1.4))
    titles = [
        "a frozen fish",
        'text "a fish"',
        "the probe",
        "watermark deleted",
        "or elsewhere",
    ]
    for number, one in enumerate(deleted):
        heat = [results.overlay(one.image_id, name) for name in (TEXT, query)]
        pictures = [one.before, *heat, one.after, one.control]
        _row(axes[number], pictures, one, titles if not number else None)
    titles = ["a fresh fish", "", "", "watermark pasted in", "other crop pasted in"]
    for number, one in enumerate(inserted):
        pictures = [one.before, None, None, one.after, one.control]
        _row(axes[_ROWS + number], pictures, one, titles if not number else None)
    effect, low, high = (row[f"probe_reliance__{name}"] for name in ("effect", "low", "high"))
    figure.suptitle(
        f"{effect:.0%} ({low:.0%} to {high:.0%}) of the probe's evidence for a frozen fish, "
        "against a fresh one, is the watermark",
        fontsize=13,
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(args.picture, dpi=80)
    print(args.picture)


def _row(
    axes: np.ndarray,
    pictures: list[Image.Image | None],
    one: EditExample,
    titles: list[str] | None,
) -> None:
    changes = ["", "", "", f"probe {one.change:+.0%}", f"probe {one.control_change:+.0%}"]
    for number, (place, picture, change) in enumerate(zip(axes, pictures, changes, strict=True)):
        _cell(place, picture, change)
        if titles is not None:
            place.set_title(titles[number], fontsize=11)


def _cell(place: Axes, picture: Image.Image | None, text: str) -> None:
    place.set_axis_off()
    if picture is not None:
        place.imshow(picture.convert("RGB").resize((288, 288)))
        place.text(0.5, -0.03, text, ha="center", va="top", transform=place.transAxes, fontsize=11)


if __name__ == "__main__":
    main()
