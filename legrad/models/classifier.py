"""An image classifier with its classes, preprocessing and tower adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from legrad.errors import UnsupportedModelError
from legrad.models.vision_model import VisionModel
from legrad.towers import Tower, tower_of

ClassNames = Sequence[str | int]
"""Classes by their name or their index."""
_EXACT, _ROUGH = 1e-3, 0.1  # allowed difference of logits, in shares of the largest


@dataclass(frozen=True, kw_only=True)
class Classifier(VisionModel):
    """A ViT of timm with a linear class head; the module is never changed.

    A logit is the dot product of the embedding, which is what the linear layer gets, with the
    class's row of weights, plus the class's bias. So the row takes the place of a text's vector,
    and nothing is normalised: the score that LeGrad differentiates is the logit itself.

    Attributes:
        classes: name of each class, in the order of the logits.
    """

    classes: tuple[str, ...]

    @cached_property
    def tower(self) -> Tower:
        """The adapter through which LeGrad reads the module."""
        return tower_of(self.model)

    @cached_property
    def _indices(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.classes)}

    @property
    def layer(self) -> nn.Linear:
        """The last linear layer."""
        return linear_head(self.model)

    def vectors(self, classes: ClassNames | None = None) -> tuple[Tensor, Tensor]:
        """Rows (Q, E) of the linear layer and its biases (Q,), in the dtype of the scores.

        Args:
            classes: names or indices; None: all.

        Raises:
            ValueError: there is no such class.
        """
        weight, bias = self.layer.weight.detach(), self._bias().detach()
        if classes is not None and tuple(classes) != self.classes:
            indices = torch.tensor([self._index(name) for name in classes], dtype=torch.int64)
            indices = indices.to(weight.device)
            weight, bias = weight[indices], bias[indices]
        return weight.to(self.exact_dtype), bias.to(self.exact_dtype)

    def logits(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, height, width), as for `LeGrad.explain` -> logits (B, classes)."""
        weight, bias = self.vectors()
        return self.encode_image(pixels) @ weight.T + bias

    def _bias(self) -> Tensor:
        weight, bias = self.layer.weight, self.layer.bias
        return weight.new_zeros(len(weight)) if bias is None else bias

    def _index(self, name: str | int) -> int:
        if isinstance(name, str):
            if name in self._indices:
                return self._indices[name]
        elif 0 <= name < len(self.classes):
            return name
        shown = ", ".join(self.classes[:8]) + (", ..." if len(self.classes) > 8 else "")
        raise ValueError(
            f"class {name!r}: expected one of {self.name}'s {len(self.classes)} classes ({shown}), "
            "or an index"
        )


def linear_head(module: Any) -> nn.Linear:
    """The linear class head of a module of timm.

    Raises:
        UnsupportedModelError: it has none.
    """
    head = module.get_classifier() if hasattr(module, "get_classifier") else None
    if not isinstance(head, nn.Linear):
        raise UnsupportedModelError(
            f"the classifier {type(module).__name__} ends in {type(head).__name__}: expected a ViT "
            "of timm whose class head is one linear layer (num_classes above 0)"
        )
    return head


@torch.no_grad()
def check_logits(classifier: Classifier) -> None:
    """Compare the classifier's logits with those of its module, on one image of noise.

    The adapter reads the parts that it knows; a module whose forward pass does anything else is
    noticed here.

    Raises:
        ValueError: the module is in training mode.
        UnsupportedModelError: the logits differ.
    """
    if classifier.model.training:
        raise ValueError("the classifier is in training mode: call model.eval() first")
    generator = torch.Generator().manual_seed(0)
    height, width = classifier.tower.native_size
    noise = torch.randn(1, 3, height, width, generator=generator)
    pixels = noise.to(classifier.device, classifier.dtype)
    with classifier.autocast():
        expected = classifier.model(pixels)
    shape, count = getattr(expected, "shape", None), len(classifier.classes)
    if shape != (1, count):
        kind = f"{type(expected).__name__} of shape {tuple(shape or ())}"
        raise UnsupportedModelError(
            f"the classifier returns a {kind}: expected logits (1, {count})"
        )
    difference = (classifier.logits(pixels) - expected).abs().amax()
    allowed = _EXACT if classifier.compute_dtype.itemsize >= 4 else _ROUGH
    if not difference <= allowed * expected.abs().amax():
        raise UnsupportedModelError(
            f"the classifier {type(classifier.model).__name__} computes other logits than its "
            "patches, blocks, norm, pooling and linear head alone would give: its forward pass "
            "does something that is not covered"
        )
