"""Train the mini model: ``python -m training.train --out FOLDER``.

It is seeded, takes about 80 minutes on two cores, and runs in stages of growing resolution, with
positional embeddings interpolated in between.
See `captions` for the texts, `objective` for the losses and `evaluate` for the card's figures.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from legrad import mini
from legrad.mini.loader import pack, unpack
from legrad.mini.world import THINGS
from training.batches import Batch, draw_batch
from training.captions import named, sample_captions, truth_matrix
from training.evaluate import Figures, evaluate
from training.objective import features_of, heat_loss, normalised, place_loss, truth_loss
from training.scenes import random_specs, render_pool

WEIGHT_DECAY = 0.02
MOST_GRADIENT = 1.0


@dataclass(frozen=True)
class Stage:
    """Steps at one resolution: linear warm-up to ``rate``, then cosine decay to ``final``.

    ``heat_weight`` weighs the loss of the maps, which mean nothing before the model has learned.
    """

    side: int
    steps: int
    rate: float
    final: float
    warm_up: int
    heat_weight: float = 0.0

    def rate_at(self, step: int) -> float:
        """Learning rate of a step of this stage."""
        if step < self.warm_up:
            return self.rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return self.final + (self.rate - self.final) * 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class Plan:
    """Everything besides the code that determines the result.

    Attributes:
        seed: seed of the scenes, captions and weights.
        scenes: number of scenes, which are rendered once; batches are drawn from them.
        batch: number of scenes in a step.
        mean_weight, place_weight: weights of the losses of the mean token and of the patch tokens;
            the class token's loss has weight 1.
        supervised_blocks: how many of the last blocks are explained and have a loss of patches.
        stages: the stages, with growing resolution.
    """

    seed: int = 7
    scenes: int = 24_000
    batch: int = 128
    mean_weight: float = 0.5
    place_weight: float = 1.0
    supervised_blocks: int = 2
    stages: tuple[Stage, ...] = (
        Stage(side=64, steps=1700, rate=1.2e-3, final=3e-4, warm_up=150),
        Stage(side=96, steps=900, rate=6e-4, final=1e-6, warm_up=40),
        Stage(side=96, steps=300, rate=4e-4, final=1e-6, warm_up=30, heat_weight=0.3),
    )

    def shortened(self, share: float) -> "Plan":
        """The plan with only a share of the steps."""
        stages = tuple(replace(s, steps=round(s.steps * share)) for s in self.stages)
        return replace(self, stages=stages)


@dataclass(frozen=True)
class Trained:
    """A trained model and the ids of the tokens that occurred in its captions."""

    model: open_clip.CLIP
    seen_tokens: Tensor


class Trainer:
    """A model in training, its scenes, and the tokens that its captions used.

    Args:
        plan: the training plan.
        processes: number of processes that render the scenes.
    """

    def __init__(self, plan: Plan, processes: int) -> None:
        self.plan = plan
        self.config = json.loads((mini.FOLDER / mini.CONFIG).read_text())
        self.rng = np.random.default_rng(plan.seed)
        torch.manual_seed(plan.seed)
        self.generator = torch.Generator().manual_seed(plan.seed)
        specs = random_specs(self.rng, plan.scenes, first_seed=0)
        self.pool = render_pool(specs, self.config["vision_cfg"]["image_size"], processes)
        self.model = open_clip.CLIP(**self.config)
        length = self.config["text_cfg"]["context_length"]
        self.tokenizer = open_clip.SimpleTokenizer(context_length=length)
        self.things = self.tokenizer([named(name) for name in THINGS])
        self.seen: set[int] = set(self.things.unique().tolist())

    def run(self, first: int = 0) -> Trained:
        """Run every stage from ``first`` on; prints the loss every 50 steps."""
        for stage in self.plan.stages[first:]:
            self._run(stage)
        return Trained(self.model.eval(), torch.tensor(sorted(self.seen)))

    def start_from(self, folder: Path) -> None:
        """Load the packed weights of a model that went through earlier stages."""
        model, known_tokens = unpack(self.config, folder / mini.WEIGHTS)
        self.model.load_state_dict(model.state_dict())
        self.seen |= known_tokens

    def _run(self, stage: Stage) -> None:
        patch = self.config["vision_cfg"]["patch_size"]
        resize_positions(self.model, stage.side // patch)
        optimiser = torch.optim.AdamW(_groups(self.model), lr=stage.rate, betas=(0.9, 0.98))
        started = time.perf_counter()
        self.model.train()
        for step in range(stage.steps):
            for group in optimiser.param_groups:
                group["lr"] = stage.rate_at(step)
            rows = self.rng.integers(0, len(self.pool.specs), self.plan.batch).tolist()
            batch = draw_batch(self.pool, rows, stage.side, patch, self.generator)
            answer, whole = self._losses(batch, stage.side // patch, stage.heat_weight)
            optimiser.zero_grad()
            whole.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MOST_GRADIENT)
            optimiser.step()
            if step % 50 == 0 or step == stage.steps - 1:
                seconds = time.perf_counter() - started
                print(
                    f"{stage.side}px {step:5d} {answer:.4f} {whole:.4f} {seconds:6.0f}s", flush=True
                )

    def _losses(self, batch: Batch, grid: int, heat_weight: float) -> tuple[Tensor, Tensor]:
        """The class token's loss, and the weighted sum of all losses."""
        plan = self.plan
        captions = sample_captions(self.rng, batch.specs)
        tokens = self.tokenizer([caption.text for caption in captions])
        self.seen.update(tokens.unique().tolist())
        truth = torch.from_numpy(truth_matrix(batch.specs, captions)).float()
        shown = F.adaptive_avg_pool2d(batch.shown, grid)
        visible = (shown.sum((2, 3)) > 1).float()
        # One visible thing per image.
        picked = torch.multinomial(visible + 1e-6, 1, generator=self.generator)
        with torch.autocast("cpu", torch.bfloat16):
            texts = self.model.encode_text(torch.cat([tokens, self.things])).float()
            sentences, things = F.normalize(texts, dim=-1).split([len(captions), len(THINGS)])
            directions = things[picked] if heat_weight else things[picked][:, :0]
            pixels = normalised(batch.pixels)
            features = features_of(self.model, pixels, directions, plan.supervised_blocks)
        answer = truth_loss(self.model, features.answer, sentences, truth)
        mean = truth_loss(self.model, features.mean, sentences, truth)
        places = place_loss(self.model, features, things, shown)
        whole = answer + plan.mean_weight * mean + plan.place_weight * places
        if heat_weight:
            chosen = picked[..., None].expand(-1, -1, grid * grid)
            heat = heat_loss(features.maps.float(), shown.flatten(2).gather(1, chosen))
            whole = whole + heat_weight * heat
        return answer.detach(), whole


def resize_positions(model: open_clip.CLIP, side: int) -> None:
    """Interpolate the vision tower's positional embeddings to a grid of side x side, in place."""
    table = model.visual.positional_embedding.data
    old = math.isqrt(len(table) - 1)
    grid = table[1:].reshape(1, old, old, -1).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, (side, side), mode="bicubic", align_corners=False)
    patches = grid.permute(0, 2, 3, 1).reshape(side * side, -1)
    model.visual.positional_embedding = torch.nn.Parameter(torch.cat([table[:1], patches]))


def _groups(model: open_clip.CLIP) -> list[dict[str, object]]:
    """Parameter groups: weight decay for matrices except embeddings, none for the rest."""
    decayed: list[torch.nn.Parameter] = []
    plain: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        matrix = parameter.ndim >= 2 and "embedding" not in name
        (decayed if matrix else plain).append(parameter)
    return [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": plain, "weight_decay": 0.0},
    ]


_CARD = """# Model card: the mini model

A CLIP small enough to ship, trained from scratch on drawn scenes (`legrad/mini/world`) for the demo
and the tests. **On any other picture its scores and maps mean nothing.**

Trained by `python -m training.train --out legrad/mini`
(seed {seed}, {minutes:.0f} minutes on two cores). It learned which captions are true of a
picture, what each place of the picture shows (from the masks of the drawing), that a thing of
which a part is painted over counts as absent, and, in the last stage, that LeGrad's heat should
lie on what a text names.

"""
_LIMIT = """
Pointing: the hottest pixel lies on the thing; by chance it does so with the share of the picture
that the mask covers. Deletion: after the hottest tenth of the cells is painted over, the score is
below the level that separates pictures with and without the thing. A border covers more than a
tenth, so most of it remains visible afterwards, and its score often stays high.
"""


def write_card(folder: Path, plan: Plan, figures: Figures, minutes: float) -> None:
    """Write ``card.json``, which the loader reads, and ``CARD.md`` for people."""
    card = {
        "default_layers": figures.layers,
        "training": asdict(plan) | {"minutes": round(minutes, 1), "torch": torch.__version__},
        "figures": figures.as_dict(),
    }
    (folder / mini.CARD).write_text(json.dumps(card, indent=1) + "\n")
    (folder / "CARD.md").write_text(
        _CARD.format(minutes=minutes, seed=plan.seed) + figures.as_markdown() + "\n" + _LIMIT
    )


def main() -> None:
    """Train, pack, evaluate the packed weights on held-out scenes, and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--seed", type=int, default=Plan.seed, help="another seed, another model")
    parser.add_argument("--share", type=float, default=1.0, help="run only this share of the steps")
    parser.add_argument(
        "--stage", type=int, default=0, help="start with this stage, counted from 0"
    )
    parser.add_argument("--weights", type=Path, help="start from the model in this folder")
    parser.add_argument(
        "--evaluate-only", action="store_true", help="measure the model in --out without training"
    )
    options = parser.parse_args()
    processes = os.cpu_count() or 1
    plan, started = Plan(seed=options.seed).shortened(options.share), time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    minutes = 0.0
    if not options.evaluate_only:
        trainer = Trainer(plan, processes)
        if options.weights:
            trainer.start_from(options.weights)
            minutes = json.loads((options.weights / mini.CARD).read_text())["training"]["minutes"]
        trained = trainer.run(options.stage)
        pack(trained.model, trained.seen_tokens, options.out / mini.WEIGHTS)
        config = (mini.FOLDER / mini.CONFIG).read_text()
        (options.out / mini.CONFIG).write_text(config)
        minutes += (time.perf_counter() - started) / 60
    figures = evaluate(options.out, processes)
    print(figures.as_markdown())
    if not options.evaluate_only:
        write_card(options.out, plan, figures, minutes)


if __name__ == "__main__":
    main()
