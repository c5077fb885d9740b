"""Models at their real size, with random weights, against the oracle."""

from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import _build_vision_tower
from torch import Tensor, nn

from legrad import LeGrad, from_open_clip
from legrad.models.catalog import architecture
from tests.builders import images, randomise, unit_directions
from tests.family_oracle import family_maps
from tests.legrad.compare import relative_error
from tests.towers import stirred

REAL = (
    "ViT-B-32",
    "ViT-B-32-SigLIP2-256",
    "coca_ViT-B-32",
    "PE-Core-B-16",
    "EVA02-B-16",
    "MobileCLIP-B",
    "vit_medium_patch16_gap_256",
    "vit_relpos_medium_patch16_cls_224",
)


class OnlyVision(nn.Module):
    """A published architecture without its text tower."""

    def __init__(self, name: str) -> None:
        super().__init__()
        config = open_clip.get_model_config(name)
        quick = config.get("quick_gelu", False)
        self.visual = _build_vision_tower(config["embed_dim"], config["vision_cfg"], quick)

    def encode_image(self, pixels: Tensor, normalize: bool = False) -> Tensor:
        output: Any = self.visual(pixels)
        features = output[0] if isinstance(output, tuple) else output  # CoCa adds its tokens
        return F.normalize(features, dim=-1) if normalize else features


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_size(name: str) -> None:
    arch = architecture(name)
    model = stirred(randomise(OnlyVision(name), 0)).eval()
    pixels = images(1, 1, arch.image_size, torch.float32)
    directions = unit_directions(2, 2, arch.embed_dim, torch.float32)
    seen = LeGrad(from_open_clip(model), layers=2).explain(pixels, directions)
    expected, scores, _ = family_maps(model, pixels, directions, 2)
    assert seen.maps.shape[-2:] == tuple(
        side // patch for side, patch in zip(arch.image_size, arch.patch_size, strict=True)
    )
    assert relative_error(seen.maps, expected) < 1e-4
    torch.testing.assert_close(seen.scores.double(), scores, atol=1e-5, rtol=0)
