"""Classifiers of timm against the oracle, which differentiates the unmodified module."""

import copy
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from legrad import LeGrad, UnsupportedModelError, from_timm
from tests.builders import images, randomise
from tests.family_oracle import classifier_maps
from tests.legrad.compare import relative_error
from tests.legrad.test_unchanged import flags
from tests.towers import TRUNK, stirred

NAMES = (
    *("vit_base_patch16_224", "deit_base_patch16_224", "deit3_small_patch16_224"),
    *("vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_base_patch16_clip_224"),
    *(
        "vit_medium_patch16_gap_256",
        "vit_medium_patch16_reg4_gap_256",
        "vit_betwixt_patch16_rope_reg4_gap_256",
    ),
    *("vit_base_patch16_siglip_224", "vit_base_patch16_siglip_gap_224", "flexivit_small"),
    *("vit_relpos_medium_patch16_cls_224", "vit_relpos_medium_patch16_224"),
    *("eva02_base_patch14_448", "eva_giant_patch14_224", "vit_pe_core_base_patch16_224"),
)
REFUSED = (
    *("deit_base_distilled_patch16_224", "beit_base_patch16_224", "swin_tiny_patch4_window7_224"),
    *("vit_small_patch16_dinov3", "resnet18", "cait_xxs24_224", "vit_base_patch16_xp_224"),
)
CLASSES = 5


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """A random classifier of a family of timm at reduced size."""
    more = {"attn_pool_num_heads": 4} if "pe_core" in name else {}
    module = timm.create_model(name, num_classes=CLASSES, **(TRUNK | more))
    return stirred(randomise(module, seed)).to(dtype).eval()


def sizes(name: str) -> list[tuple[int, int]]:
    return [(32, 32)] if "relpos" in name else [(32, 32), (24, 40)]


@pytest.mark.parametrize("name", NAMES)
def test_every_family_agrees_with_the_oracle(name: str) -> None:
    module = build(name)
    legrad = LeGrad(from_timm(module))
    for size in sizes(name):
        pixels = images(1, 2, size)
        expected, logits = classifier_maps(module, pixels, range(CLASSES), 2)
        seen = legrad.explain(pixels)
        assert relative_error(seen.maps, expected) < 1e-6
        torch.testing.assert_close(seen.scores, logits, atol=1e-9, rtol=0)
        assert (expected.std(dim=(-2, -1)) / expected.mean(dim=(-2, -1))).min() > 0.05


@pytest.mark.parametrize("name", NAMES)
def test_single_precision(name: str) -> None:
    module = build(name, seed=1, dtype=torch.float32)
    state, before = copy.deepcopy(module.state_dict()), flags(module)
    pixels = images(1, 2, (32, 32), torch.float32)
    expected, logits = classifier_maps(module, pixels, range(CLASSES), 2)
    seen = LeGrad(from_timm(module)).explain(pixels)
    assert relative_error(seen.maps, expected) < 1e-4
    torch.testing.assert_close(seen.scores.double(), logits, atol=1e-4, rtol=1e-4)
    assert flags(module) == before
    for key, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[key]), key


def from_torchvision(model: Any) -> dict[str, Tensor]:
    """The weights of torchvision's ViT under timm's names."""
    names = {
        "class_token": "cls_token", "encoder.pos_embedding": "pos_embed",
        "conv_proj": "patch_embed.proj",
        "encoder.ln": "norm", "heads.head": "head", "encoder.layers.encoder_layer_": "blocks.",
        "ln_1": "norm1", "ln_2": "norm2", "self_attention.in_proj_": "attn.qkv.",
        "self_attention.out_proj": "attn.proj", "mlp.0": "mlp.fc1", "mlp.3": "mlp.fc2",
    }  # fmt: skip
    state = {}
    for key, value in model.state_dict().items():
        renamed = key
        for old, new in names.items():
            renamed = renamed.replace(old, new)
        state[renamed] = value
    return state


def test_torch_cam_agrees() -> None:
    """A second implementation, for torchvision's ViT; it averages the layers that we sum."""
    methods = pytest.importorskip("torchcam.methods")
    from torchvision.models.vision_transformer import VisionTransformer

    sizes = {"image_size": 32, "patch_size": 8, "num_layers": 2, "num_heads": 4}
    theirs = VisionTransformer(**sizes, hidden_dim=48, mlp_dim=192, num_classes=CLASSES)
    randomise(theirs, 3).double().eval()
    module = build(NAMES[0])
    module.load_state_dict(from_torchvision(theirs))
    pixels = images(1, 1, (32, 32))
    seen = LeGrad(from_timm(module)).explain(pixels)
    with methods.LeGrad(theirs, list(theirs.encoder.layers)) as extractor:
        for number in range(CLASSES):
            scores = theirs(pixels)
            maps = extractor(number, scores, normalized=False)[0]
            torch.testing.assert_close(seen.scores, scores.detach(), atol=1e-9, rtol=0)
            expected = torch.stack([maps.squeeze()])[None] * 2
            assert relative_error(seen.maps[:, number : number + 1], expected) < 1e-6


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedModelError):
        from_timm(timm.create_model(name, num_classes=3).eval())
