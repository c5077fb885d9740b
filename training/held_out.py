"""Held-out scenes at the model's input size, with true masks."""

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from legrad.mini.world import Mask, SceneSpec, render
from training.scenes import pixels_of

_OVERSIZE = 2  # drawn at twice the input size, as pictures are larger than the model's input
_CHUNK = 100
_Row = tuple[NDArray[np.uint8], dict[str, Mask]]


@dataclass(frozen=True)
class Truth:
    """N pictures with the masks of their contents.

    Attributes:
        specs: contents.
        pixels: uint8 (N, 3, side, side).
        visible: per picture the mask, bool (side, side), of everything visible in it. An overlay's
            mask is its ink, dilated by half a patch; an object's is exact.
    """

    specs: list[SceneSpec]
    pixels: NDArray[np.uint8]
    visible: list[dict[str, Mask]]

    def contains(self, name: str) -> NDArray[np.bool_]:
        """Which pictures contain an object or overlay: bool (N,)."""
        return np.array([name == s.object or name in s.overlays for s in self.specs])

    def masks(self, name: str) -> NDArray[np.bool_]:
        """Masks (N, side, side) of a thing; all false in pictures without it."""
        nothing = np.zeros(self.pixels.shape[2:], dtype=np.bool_)
        return np.stack([masks.get(name, nothing) for masks in self.visible])


def held_out(specs: Sequence[SceneSpec], side: int, patch: int, processes: int) -> Truth:
    """Render scenes with masks at the model's input size, on all cores.

    Args:
        specs: contents of the scenes.
        side: input side of the model in pixels.
        patch: side of its patches in pixels.
        processes: worker processes.
    """
    chunks = [list(specs[i : i + _CHUNK]) for i in range(0, len(specs), _CHUNK)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as workers:
        count = len(chunks)
        parts = list(workers.map(_render_chunk, chunks, [side] * count, [patch] * count))
    rows = [row for part in parts for row in part]
    return Truth(list(specs), np.stack([p for p, _ in rows]), [masks for _, masks in rows])


def _render_chunk(specs: list[SceneSpec], side: int, patch: int) -> list[_Row]:
    return [_render_row(spec, side, patch) for spec in specs]


def _render_row(spec: SceneSpec, side: int, patch: int) -> _Row:
    scene = render(spec, side * _OVERSIZE)
    masks = {name: _reduced(mask, patch) for name, mask in scene.overlay_masks.items()}
    if spec.object is not None:
        masks[spec.object] = _reduced(scene.object_mask, 0)
    return pixels_of(scene.image, side), masks


def _reduced(mask: Mask, dilation: int) -> Mask:
    """The mask at the input size, grown by ``dilation`` drawn pixels."""
    image = Image.fromarray(mask)
    if dilation:
        image = image.convert("L").filter(ImageFilter.MaxFilter(2 * dilation + 1))
    return np.asarray(image.convert("L").reduce(_OVERSIZE)) > 127
