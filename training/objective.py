"""The training losses.

They concern which captions are true of an image, which things each of its patches shows, and where
LeGrad's heat lies.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

from training.heat import trace_maps

_COVERED = 0.25
_FLOOR = 1e-3  # of a mean cell: the least heat that the loss tells from none
_MOST_WEIGHT = 1 / 4  # a caption true of fewer than four images counts as if it were of four


def normalised(pixels: Tensor) -> Tensor:
    """uint8 or float pixels (B, 3, side, side) in [0, 255] -> float32 as open_clip expects."""
    mean = torch.tensor(OPENAI_DATASET_MEAN).view(3, 1, 1)
    std = torch.tensor(OPENAI_DATASET_STD).view(3, 1, 1)
    return (pixels.float() / 255 - mean) / std


def jittered(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """Vary contrast, brightness and colour cast of every image a little; float in [0, 255]."""
    batch = len(pixels)
    gain = 1 + 0.1 * torch.randn(batch, 1, 1, 1, generator=generator)
    cast = 8 * torch.randn(batch, 3, 1, 1, generator=generator)
    return ((pixels.float() - 128) * gain + 128 + cast).clamp(0, 255)


@dataclass(frozen=True)
class Features:
    """Unit features of B images by the model's own head.

    Attributes:
        answer: (B, E), of the class token, which is the model's image feature.
        mean: (B, E), of the mean token, which LeGrad scores.
        patches: for each supervised block (B, patches, E), the features of the patch tokens.
        maps: (B, q, patches), LeGrad's heat for the directions of each image.
    """

    answer: Tensor
    mean: Tensor
    patches: list[Tensor]
    maps: Tensor


def features_of(model: CLIP, pixels: Tensor, directions: Tensor, blocks: int) -> Features:
    """Run the vision tower.

    Args:
        model: the model in training.
        pixels: normalised images (B, 3, side, side).
        directions: unit text features (B, q, E) to explain, those of each image.
        blocks: how many last blocks give patch features and maps.
    """
    visual = model.visual
    traced = trace_maps(model, pixels, directions, blocks)
    tokens = traced.states[-1]

    def head(token: Tensor) -> Tensor:
        return F.normalize((visual.ln_post(token) @ visual.proj).float(), dim=-1)

    return Features(
        answer=head(tokens[:, 0]),
        mean=head(tokens.mean(dim=1)),
        patches=[head(state[:, 1:]) for state in traced.states[-blocks:]],
        maps=traced.maps,
    )


def balanced_weights(truth: Tensor) -> Tensor:
    """Weights (B, captions) by which every caption, and true and false in all, count alike.

    Args:
        truth: float 0 or 1, (B, captions).

    Returns:
        Weights whose sum over the true pairs is 1/2 and over the false pairs 1/2.
    """
    positive = truth * (1 / truth.sum(0)).clamp(max=_MOST_WEIGHT)
    negative = (1 - truth) * (1 / (1 - truth).sum(0)).clamp(max=_MOST_WEIGHT)
    return 0.5 * positive / positive.sum() + 0.5 * negative / negative.sum()


def truth_loss(model: CLIP, features: Tensor, text: Tensor, truth: Tensor) -> Tensor:
    """Weighted sigmoid loss of image features (B, E) and text features (captions, E)."""
    return F.binary_cross_entropy_with_logits(
        _logits(model, features, text), truth, weight=balanced_weights(truth), reduction="sum"
    )


def place_loss(model: CLIP, features: Features, text: Tensor, shown: Tensor) -> Tensor:
    """Loss of every patch token of the supervised blocks for the things visible in its patch.

    Without it a model may store information in any token, and LeGrad then shows that token: the
    heat of a border lay inside the frame (pixel AUC .21).

    Args:
        model: the model in training.
        features: features of its images.
        text: unit features (things, E).
        shown: share of every patch that a thing covers, (B, things, h, w); a patch that it
            covers only a little counts as neither present nor absent.
    """
    covered = shown.flatten(2).transpose(1, 2).flatten(0, 1)  # (B * patches, things)
    present, absent = (covered >= _COVERED).float(), (covered <= 0).float()
    positive = present / present.sum(0).clamp(min=1)
    negative = absent / absent.sum(0).clamp(min=1)
    weight = 0.5 * positive / positive.sum() + 0.5 * negative / negative.sum()
    losses = [
        F.binary_cross_entropy_with_logits(
            _logits(model, patches.flatten(0, 1), text), present, weight=weight, reduction="sum"
        )
        for patches in features.patches
    ]
    return torch.stack(losses).mean()


def heat_loss(maps: Tensor, shown: Tensor) -> Tensor:
    """Divergence of the map from even heat on the thing: cross-entropy less its minimum.

    Args:
        maps: (B, q, patches), raw.
        shown: share of every patch that the thing of each map covers, (B, q, patches); maps of
            absent things do not count.
    """
    area = shown.sum(dim=-1, keepdim=True)
    target = shown / area.clamp(min=1e-6)
    heat = maps / maps.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    floor = _FLOOR / maps.shape[-1]
    divergence = (target * ((target + floor).log() - (heat + floor).log())).sum(dim=-1)
    present = (area[..., 0] > 1).to(maps.dtype)
    return (divergence * present).sum() / present.sum().clamp(min=1)


def _logits(model: CLIP, features: Tensor, text: Tensor) -> Tensor:
    logits: Tensor = model.logit_scale.exp() * features @ text.T + model.logit_bias
    return logits
