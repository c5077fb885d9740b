"""The picture of reliance: ``python -m benchmarks.reliance_picture OUT docs/reliance.webp``.

For two labels of the demo that only a watermark distinguishes, it shows where the text looks, where
a probe on the labels looks, and how deletion and insertion of the watermark change the probe.
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
    """Draw the picture from the output of the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="output of the demo's run")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    audit = Audit.from_results(args.out, settings={"depth": "reliance"}, tell=print)
    row = audit.pair(CLS, CUE).finding
    results = audit.reliance.probe_maps()
    examples = audit.reliance.examples(CLS, CUE, count=60, side=288)
    query = probe_query(CLS)
    deleted = [e for e in examples if e.kind is Kind.DELETED]
    inserted = [e for e in examples if e.kind is Kind.INSERTED]
    maps = results.maps(query, [e.image_id for e in deleted])[1]
    deleted = [e for e, heat in zip(deleted, maps, strict=True) if not np.isnan(heat).any()][:_ROWS]
    figure, axes = plt.subplots(_ROWS + 1, 5, figsize=(11, 2.5 * (_ROWS + 1) + 0.5))
    titles = ["a frozen fish", 'text "a fish"', "the probe", "watermark deleted", "or elsewhere"]
    for number, edit in enumerate(deleted):
        heat = [results.overlay(edit.image_id, name) for name in (TEXT, query)]
        pictures = [edit.before, *heat, edit.after, edit.control]
        changes = [None, None, None, edit.change, edit.control_change]
        _row(axes[number], pictures, changes, titles if not number else None)
    first, last = inserted[0], inserted[-1]
    titles = ["a fresh fish", "watermark pasted in", "or another crop", "a fresh fish", "watermark"]
    pictures = [first.before, first.after, first.control, last.before, last.after]
    _row(axes[-1], pictures, [None, first.change, first.control_change, None, last.change], titles)
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
    for number, (axis, picture, change) in enumerate(zip(axes, pictures, changes, strict=True)):
        _cell(axis, picture, "" if change is None else f"probe {change:+.0%}")
        if titles is not None:
            axis.set_title(titles[number], fontsize=11)


def _cell(axis: Axes, picture: Image.Image, text: str) -> None:
    axis.set_axis_off()
    axis.imshow(picture.convert("RGB").resize((288, 288)))
    axis.text(0.5, -0.03, text, ha="center", va="top", transform=axis.transAxes, fontsize=11)


if __name__ == "__main__":
    main()
