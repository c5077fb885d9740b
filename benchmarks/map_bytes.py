"""What a stored map costs, and what a better coding would gain: ``-m benchmarks.map_bytes``.

Real maps: the mini model on the demo's scenes, and ViT-B-16 with random weights at 224 px on the
same scenes (its maps have the grid of the real one, not its looks).
"""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray

from benchmarks.engine import random_model
from legrad import LeGrad, load_model
from legrad.heatmaps.codec import decode_maps, encode_maps
from legrad.mini.world import render
from legrad.models.vision_language import VisionLanguageModel
from pipeline.demo.dataset import SIDE, example
from pipeline.runs.parts import parquet_options

TEXTS = ("a fish", "a watermark", "water", "a bird", "an image", "a barcode")
_BATCH = 16


def main() -> None:
    """Print the table."""
    report()


def report(scenes: int = 400, large_scenes: int = 64) -> None:
    """Bytes a cell, by model; distribution over the maps."""
    print("\nbytes a cell of real maps (stored: zstd 3 in Parquet; 8 bytes more a map: score, max)")
    print("  model      grid    maps  stored | entropy  of deltas  deltas+zstd | p5   p50   p95")
    mini = load_model("mini")
    _row("mini", maps_of(mini, scenes))
    torch.manual_seed(0)
    _row("ViT-B-16*", maps_of(random_model("ViT-B-16", 224), large_scenes))
    print("  entropy: bits of a byte / 8, over all maps; p5 to p95: of single maps, their deltas")
    print("  * random weights")


def maps_of(model: VisionLanguageModel, scenes: int) -> NDArray[np.float32]:
    """(scenes * texts, h, w) raw maps of drawn scenes."""
    text = model.encode_text(list(TEXTS))
    legrad = LeGrad(model)
    found = []
    for start in range(0, scenes, _BATCH):
        numbers = range(start, min(start + _BATCH, scenes))
        images = [render(example(0, number).spec, SIDE).image for number in numbers]
        pixels = np.stack([model.preprocess(image) for image in images])
        found.append(legrad.explain(torch.from_numpy(pixels), text).maps.float().cpu().numpy())
    maps = np.concatenate(found)
    return maps.reshape(-1, *maps.shape[2:])


def _row(name: str, maps: NDArray[np.float32]) -> None:
    cells, peaks = encode_maps(maps)
    error = np.abs(decode_maps(cells, peaks) - maps).max(axis=(1, 2)) * 510 / peaks
    deltas = _deltas(cells)
    single = np.array([_entropy(part) for part in deltas])
    low, middle, high = np.quantile(single, [0.05, 0.5, 0.95])
    h, w = cells.shape[1:]
    print(
        f"  {name:10s} {h}x{w} {len(cells):7,}  {_stored(cells):6.3f} | {_entropy(cells):6.3f}  "
        f"{_entropy(deltas):8.3f}  {_stored(deltas):10.3f}   | {low:.2f}  {middle:.2f}  {high:.2f}"
        f"   largest error {error.max():.3f} x maximum / 510"
    )


def _stored(cells: NDArray[np.uint8]) -> float:
    """Bytes a cell in a Parquet column as a run writes it."""
    size = cells[0].size
    column = pa.Array.from_buffers(
        pa.binary(size), len(cells), [None, pa.py_buffer(np.ascontiguousarray(cells))]
    )
    table = pa.table({"heatmap__x": column})
    sink = io.BytesIO()
    pq.write_table(table, sink, **parquet_options(table.schema))
    chunk = pq.read_metadata(io.BytesIO(sink.getvalue())).row_group(0).column(0)
    return float(chunk.total_compressed_size / cells.size)


def _deltas(cells: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each cell less the mean of its left and upper neighbour, modulo 256."""
    padded = np.pad(cells.astype(np.int16), ((0, 0), (1, 0), (1, 0)))
    left, above = padded[:, 1:, :-1], padded[:, :-1, 1:]
    return ((cells.astype(np.int16) - (left + above) // 2) % 256).astype(np.uint8)


def _entropy(values: NDArray[np.uint8]) -> float:
    """Entropy of single bytes, in bytes."""
    share = np.bincount(values.reshape(-1), minlength=256) / values.size
    share = share[share > 0]
    return float(-(share * np.log2(share)).sum() / 8)


if __name__ == "__main__":
    main()
