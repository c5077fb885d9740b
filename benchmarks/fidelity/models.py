"""Two small models that were trained without heat or masks, so that their maps can be judged.

Both are trained as `benchmarks.photographs_model` says, from captions alone: one on photographs,
whose tower averages its patches, and one on drawn scenes, whose tower pools a class token.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.photographs import CHECKED
from benchmarks.photographs_model import SIDE, VISION, Trainer
from benchmarks.photographs_world import Photographs, read_photographs, split
from legrad.mini.world import BACKGROUNDS, OBJECTS, SceneSpec
from training.scenes import HELD_OUT, render_pool

CLASS_TOKEN = VISION | {
    "layers": 4,
    "pool_type": "tok",
    "final_ln_after_pool": False,
    "no_ln_pre": False,
}
"""The tower of the drawn world's model: pooled and normed as CLIP's are."""
SCENES, FOLLOWED = 4000, 500


def scenes(count: int, first_seed: int) -> list[SceneSpec]:
    """Scenes with an object and without overlays, which training pastes itself."""
    rng = np.random.default_rng(first_seed)
    backgrounds = rng.integers(0, len(BACKGROUNDS), count).tolist()
    return [
        SceneSpec(OBJECTS[i % len(OBJECTS)], BACKGROUNDS[background], (), first_seed + i)
        for i, background in enumerate(backgrounds)
    ]


def drawn(count: int, first_seed: int) -> Photographs:
    """Scenes as if they were photographs of their objects."""
    specs = scenes(count, first_seed)
    pixels = render_pool(specs, SIDE, processes=1).pixels.transpose(0, 2, 3, 1)
    labels = np.array([OBJECTS.index(str(spec.object)) for spec in specs])
    return Photographs(np.ascontiguousarray(pixels), labels, tuple(OBJECTS))


def main() -> None:
    """Train a model for some minutes, and write it without a test of quality."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, help="folder for the model")
    parser.add_argument(
        "--images", type=Path, help="photographs, see benchmarks.photographs; default: drawn scenes"
    )
    parser.add_argument("--minutes", type=float, default=12, help="for its image tower")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.images:
        training, held_out = split(read_photographs(args.images))
        trainer = Trainer(training, held_out.take(np.arange(CHECKED)))
    else:
        checked = drawn(FOLLOWED, HELD_OUT)
        trainer = Trainer(drawn(SCENES, 0), checked, vision=CLASS_TOKEN)
    trainer.run(args.minutes, args.out, strict=False)


if __name__ == "__main__":
    main()
