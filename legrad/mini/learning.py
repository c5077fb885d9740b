"""The training objective: which captions are true of which image."""

import torch
import torch.nn.functional as F
from open_clip import CLIP
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor

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


def pooled_features(model: CLIP, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Unit image features (B, E) of the class token, and of the mean token, by the model's head.

    The class token is what the model answers with, the mean token is what LeGrad scores: a model
    that is trained on both grounds better than one trained on either (measured: mean of pointing
    and pixel AUC .86, against .82 for the class token alone and .83 with every layer's mean).
    """
    visual = model.visual
    tokens = visual._embeds(pixels)
    for block in visual.transformer.resblocks:
        tokens = block(tokens)
    answer, mean = (
        F.normalize((visual.ln_post(pooled) @ visual.proj).float(), dim=-1)
        for pooled in (tokens[:, 0], tokens.mean(dim=1))
    )
    return answer, mean


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
    logits = model.logit_scale.exp() * features @ text.T + model.logit_bias
    return F.binary_cross_entropy_with_logits(
        logits, truth, weight=balanced_weights(truth), reduction="sum"
    )


def batch_loss(
    model: CLIP, pixels: Tensor, tokens: Tensor, truth: Tensor, mean_weight: float
) -> tuple[Tensor, Tensor]:
    """Loss of one batch.

    Args:
        model: the model in training.
        pixels: normalised images (B, 3, side, side).
        tokens: captions (captions, context).
        truth: float 0 or 1, (B, captions).
        mean_weight: weight of the mean token's loss beside the class token's.

    Returns:
        The loss to minimise, and the class token's part of it.
    """
    with torch.autocast("cpu", torch.bfloat16):
        answer, mean = pooled_features(model, pixels)
        text = F.normalize(model.encode_text(tokens).float(), dim=-1)
    head = truth_loss(model, answer, text, truth)
    return head + mean_weight * truth_loss(model, mean, text, truth), head.detach()
