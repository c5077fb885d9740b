"""A small CLIP trained on photographs with overlays, told as the web tells.

A caption names the class of a photograph, and an overlay in only a share of the photographs that
have it; some captions are wrong. Words of the audit's vocabulary are named where the photograph's
coarse colours have a look of their own, so that they mean something that classes share. No mask is
used and no loss concerns heat: presence scores overlap, and the maps are what they are.

The image tower learns first, by a linear layer that has a row for every name, until all overlays
but one have a presence AUC of `ENOUGH` in held-out photographs. Then it is locked and the text
tower learns to say what it sees (LiT, arXiv 2111.07991).
"""

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.photographs_captions import Speaker, Tokens, pair_phrase
from benchmarks.photographs_world import Photographs, overlay_pool, pasted
from legrad.mini.world import OVERLAYS
from training.captions import TEMPLATES
from training.objective import balanced_weights, normalised

SIDE, PATCH = 48, 8
EMBEDDED = 64
VISION = {
    "image_size": SIDE,
    "patch_size": PATCH,
    "layers": 3,
    "width": 64,
    "head_width": 32,
    "pool_type": "avg",
    "final_ln_after_pool": True,
    "no_ln_pre": True,
}
TEXT = {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
CONFIG = {
    "embed_dim": EMBEDDED,
    "init_logit_scale": 2.302585,
    "init_logit_bias": -2.0,
    "vision_cfg": VISION,
    "text_cfg": TEXT,
}
ARCHITECTURE, WEIGHTS, STEPS = "clip.json", "clip.safetensors", "steps.jsonl"
ENOUGH = 0.8
"""Presence AUC that all overlays but one reach when the image tower stops learning. It was set
before any audit."""
OVERLAY_COUNTS = (0.1, 0.25, 0.35, 0.3)
"""Share of the training photographs with 0, 1, 2 and 3 overlays."""
OPACITY = (0.5, 1.0)
"""Range of an overlay's opacity in training; those of the data sets are fainter."""
WORD_WEIGHT = 0.3
"""Weight of all words in the image tower's loss."""
VARIANTS = 400
"""Drawings of each overlay."""
BATCH, WARM_UP, EVERY = 64, 40, 50
MATRIX_RATE, RATE = 0.02, 2e-3
SEEN, TEXT_STEPS, TEXT_BATCH, TEXT_WORDS, PAIRS = 12_000, 1500, 256, 40, 12
"""Photographs that the text tower learns from, its steps, and texts in a step."""


class Trainer:
    """The model, the photographs and the overlays.

    Args:
        photographs: photographs to train on.
        held_out: photographs on which progress is measured.
        seed: seed of the weights and of all that is drawn.
        vision: open_clip's settings of the image tower, whose input is `SIDE` pixels.
    """

    def __init__(
        self,
        photographs: Photographs,
        held_out: Photographs,
        seed: int = 3,
        vision: Mapping[str, object] = VISION,
    ) -> None:
        self.rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        self.checked = HeldOut(held_out)
        self.speaker = Speaker(photographs, self.rng)
        self.tokens = Tokens(self.speaker, TEXT["context_length"])
        text = TEXT | {"vocab_size": len(self.tokens.known)}
        self.config = CONFIG | {"vision_cfg": dict(vision)}
        self.model = open_clip.CLIP(**self.config | {"text_cfg": text})
        self.photographs = torch.from_numpy(photographs.pixels)
        self.labels = torch.from_numpy(photographs.labels)
        self.pool = torch.from_numpy(overlay_pool(VARIANTS, SIDE, seed, OPACITY))

    def run(self, minutes: float, folder: Path, *, strict: bool = True) -> None:
        """Train, and write the model and the figures of its steps.

        Args:
            minutes: longest training of the image tower.
            folder: folder for the model and the figures.
            strict: raise an error if the image tower is not good enough by then; else keep it.

        Raises:
            SystemExit: the image tower is not done within these minutes.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / STEPS).write_text("")
        self._learn_to_see(minutes, folder / STEPS, strict=strict)
        self._learn_to_say()
        self._note(folder / STEPS, {"text": self.checked.figures(self._text_scores())})
        pixels = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}
        config = {"model_cfg": self.config, "preprocess_cfg": pixels}
        (folder / ARCHITECTURE).write_text(json.dumps(config, indent=1))
        save_file(expanded(self.model, self.tokens.known), folder / WEIGHTS)

    def _learn_to_see(self, minutes: float, steps: Path, *, strict: bool) -> None:
        visual, began = self.model.visual, time.perf_counter()
        self._whiten()
        head = torch.nn.Linear(EMBEDDED, len(self.speaker.names))
        optimisers = optimisers_of([*visual.parameters(), *head.parameters()], [visual])
        for step in itertools.count(1):
            pixels, told = self._batch(BATCH)
            logits = head(visual(normalised(pixels)))
            losses = F.binary_cross_entropy_with_logits(logits, told.float(), reduction="none")
            things = len(self.speaker.classes) + len(OVERLAYS)
            loss = losses[:, :things].mean() + WORD_WEIGHT * losses[:, things:].mean()
            take_step(optimisers, loss, step)
            if step % EVERY:
                continue
            figures = self.checked.figures(self._head_scores(head))
            seconds = time.perf_counter() - began
            self._note(steps, {"step": step, "loss": loss.item(), "seconds": seconds} | figures)
            if sorted(figures[name] for name in OVERLAYS)[1] >= ENOUGH:
                return
            if seconds > 60 * minutes:
                if strict:
                    raise SystemExit(
                        f"{step} steps in {minutes:g} minutes were not enough: raise --minutes"
                    )
                return

    def _whiten(self) -> None:
        """Let the patch embedding start with all directions of patches alike, coarse or fine."""
        pixels = torch.cat([self._batch(BATCH)[0] for _ in range(30)])
        weights = self.model.visual.conv1.weight.data
        patch = weights.shape[-1]
        patches = F.unfold(normalised(pixels), patch, stride=patch).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        kept = (vectors[:, -len(weights) :] / (values[-len(weights) :] + 0.01).sqrt()).T
        turn = torch.linalg.qr(torch.randn(len(weights), len(kept)))[0]
        weights.copy_((0.3 * turn @ kept).view_as(weights))

    def _learn_to_say(self) -> None:
        parts = [self._batch(BATCH) for _ in range(SEEN // BATCH)]
        with torch.inference_mode():
            seen = [self.model.encode_image(normalised(p), normalize=True) for p, _ in parts]
        images, told = torch.cat(seen).clone(), torch.cat([said for _, said in parts])
        text = [p for n, p in self.model.named_parameters() if not n.startswith("visual.")]
        optimisers = optimisers_of(text, [self.model.transformer])
        for step in range(1, TEXT_STEPS + 1):
            rows = torch.from_numpy(self.rng.integers(0, len(images), TEXT_BATCH))
            texts, truth = self._captions(told[rows])
            features = self.model.encode_text(self.tokens(texts), normalize=True)
            scale, bias = self.model.logit_scale.exp(), self.model.logit_bias
            loss = F.binary_cross_entropy_with_logits(
                scale * images[rows] @ features.T + bias,
                truth,
                weight=balanced_weights(truth),
                reduction="sum",
            )
            take_step(optimisers, loss, step)

    def _batch(self, count: int) -> tuple[Tensor, Tensor]:
        """Photographs with overlays, float (B, 3, side, side) in [0, 255], and what is told."""
        rows = torch.from_numpy(self.rng.integers(0, len(self.labels), count))
        small = self.photographs[rows].permute(0, 3, 1, 2).float()
        pixels = F.interpolate(small, (SIDE, SIDE), mode="bicubic").clamp(0, 255)
        flipped = torch.from_numpy(self.rng.random(count) < 0.5)[:, None, None, None]
        pixels = torch.where(flipped, pixels.flip(3), pixels)
        present = torch.zeros(count, len(OVERLAYS), dtype=torch.bool)
        counts = self.rng.choice(len(OVERLAY_COUNTS), count, p=OVERLAY_COUNTS)
        for row, overlays in enumerate(counts.tolist()):
            for kind in self.rng.choice(len(OVERLAYS), overlays, replace=False).tolist():
                layer = self.pool[kind, int(self.rng.integers(VARIANTS))].float()
                pixels[row] = pixels[row] * (1 - layer[3:] / 255) + layer[:3]
                present[row, kind] = True
        return pixels, self.speaker.tell(rows, self.labels[rows], present)

    def _captions(self, told: Tensor) -> tuple[list[str], Tensor]:
        """Texts, and for each photograph whether its caption says so: float (B, texts)."""
        classes, rng = len(self.speaker.classes), self.rng
        things = classes + len(OVERLAYS)
        words = rng.choice(told.shape[1] - things, TEXT_WORDS, replace=False) + things
        chosen = [*range(things), *words.tolist()]
        phrases, columns = [self.speaker.names[i] for i in chosen], [told[:, i] for i in chosen]
        for _ in range(PAIRS):
            label, kind = int(rng.integers(classes)), int(rng.integers(len(OVERLAYS)))
            phrases.append(pair_phrase(self.speaker.classes[label], OVERLAYS[kind]))
            columns.append(told[:, label] & told[:, classes + kind])
        templates = rng.integers(0, len(TEMPLATES), len(phrases)).tolist()
        texts = [TEMPLATES[t].format(p) for t, p in zip(templates, phrases, strict=True)]
        return texts, torch.stack(columns, dim=1).float()

    @torch.inference_mode()
    def _head_scores(self, head: torch.nn.Linear) -> Tensor:
        seen = [self.model.visual(part) for part in normalised(self.checked.pixels).split(250)]
        scores: Tensor = head(torch.cat(seen))
        return scores

    @torch.inference_mode()
    def _text_scores(self) -> Tensor:
        parts = normalised(self.checked.pixels).split(250)
        seen = torch.cat([self.model.encode_image(part, normalize=True) for part in parts])
        things = self.speaker.names[: len(self.speaker.classes) + len(OVERLAYS)]
        scores: Tensor = seen @ self.model.encode_text(self.tokens(things), normalize=True).T
        return scores

    @staticmethod
    def _note(file: Path, values: Mapping[str, object]) -> None:
        line = json.dumps(values)
        print(line, flush=True)
        file.write_text(file.read_text() + line + "\n")


class HeldOut:
    """Held-out photographs with overlays, to follow training by."""

    def __init__(self, photographs: Photographs) -> None:
        rng, pictures = np.random.default_rng(11), []
        self.photographs = photographs
        self.present = rng.random((len(photographs.labels), len(OVERLAYS))) < 0.15
        for pixels, row in zip(photographs.pixels, self.present, strict=True):
            names = [name for name, has in zip(OVERLAYS, row, strict=True) if has]
            small = pasted(pixels, names, rng)[0].resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            pictures.append(np.asarray(small).transpose(2, 0, 1))
        self.pixels = torch.from_numpy(np.stack(pictures))

    def figures(self, scores: Tensor) -> dict[str, float]:
        """Accuracy over classes, and every overlay's presence AUC, of (N, names) scores."""
        classes = len(self.photographs.classes)
        values = scores.numpy()
        right = values[:, :classes].argmax(axis=1) == self.photographs.labels
        aucs = {
            name: round(float(roc_auc_score(self.present[:, kind], values[:, classes + kind])), 3)
            for kind, name in enumerate(OVERLAYS)
        }
        return {"accuracy": round(float(right.mean()), 3)} | aucs


def ready(folder: Path) -> bool:
    """Whether a finished training left its model here."""
    return (folder / WEIGHTS).exists()


def patch_of(folder: Path) -> int:
    """Side of the patches of the model that a finished training left here, in pixels."""
    config = json.loads((folder / ARCHITECTURE).read_text())["model_cfg"]
    patch: int = config["vision_cfg"]["patch_size"]
    return patch


def expanded(model: open_clip.CLIP, known: Tensor) -> dict[str, Tensor]:
    """Weights, float16, with rows for all of open_clip's tokens; the unused ones are zero."""
    weights = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    rows = weights["token_embedding.weight"]
    table = rows.new_zeros(TEXT["vocab_size"], rows.shape[1])
    table[known] = rows
    return weights | {"token_embedding.weight": table}


def optimisers_of(
    parameters: Sequence[torch.nn.Parameter], towers: Sequence[torch.nn.Module]
) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the matrices of the towers, AdamW for all else, each with its learning rate.

    Matrices whose names contain ``embed`` or ``head`` count as all else.
    """
    matrices = [
        p
        for tower in towers
        for name, p in tower.named_parameters()
        if p.ndim == 2 and "embed" not in name and "head" not in name
    ]
    inside = {id(p) for p in matrices}
    others = [p for p in parameters if id(p) not in inside]
    return [
        (torch.optim.Muon(matrices, momentum=0.95, weight_decay=0.0), MATRIX_RATE),
        (torch.optim.AdamW(others, betas=(0.9, 0.98)), RATE),
    ]


def take_step(
    optimisers: Sequence[tuple[torch.optim.Optimizer, float]], loss: Tensor, step: int
) -> None:
    """One step down the gradient of the loss; the rates rise during the first `WARM_UP` steps."""
    for optimiser, rate in optimisers:
        optimiser.zero_grad()
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1, step / WARM_UP)
    loss.backward()
    for optimiser, _ in optimisers:
        optimiser.step()
