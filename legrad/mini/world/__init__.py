"""The drawn world: small scenes with true masks, for training, the demo and the tests.

Needs Pillow and numpy only. ``render(SceneSpec("fish", "water", ("watermark",), seed=1))`` gives
the picture, the mask of the fish and the mask of the watermark's ink.
"""

from legrad.mini.world.scene import (
    BACKGROUNDS,
    OBJECTS,
    OVERLAYS,
    THINGS,
    UNSEEN,
    Mask,
    Scene,
    SceneSpec,
    render,
)

__all__ = [
    "BACKGROUNDS",
    "OBJECTS",
    "OVERLAYS",
    "THINGS",
    "UNSEEN",
    "Mask",
    "Scene",
    "SceneSpec",
    "render",
]
