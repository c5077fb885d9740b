"""Every architecture of open_clip that is listed, at reduced depth and width."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import open_clip
import timm
import torch
from timm.models import vision_transformer_hybrid as hybrid
from torch import nn

from legrad.models import catalog
from legrad.models.definition import define
from tests.builders import TINY_TEXT, randomise

WIDTH, EMBED = 48, 32
SMALL = {"width": WIDTH, "head_width": 12, "layers": 2, "patch_size": 8, "image_size": 32}
TRUNK = {"embed_dim": WIDTH, "depth": 2, "num_heads": 4, "patch_size": 8, "img_size": 32}
MULTIMODAL = {**TINY_TEXT, "attn_pooler_heads": 2}
PLAIN = (int, float, str, tuple, type(None))


@dataclass(frozen=True)
class Kind:
    """Architectures that differ in nothing but size.

    Attributes:
        names: of all of them.
        family: as listed.
        vision: open_clip's vision config at reduced size.
        quick: whether it uses QuickGELU.
        trunk: further arguments of the timm model.
    """

    names: tuple[str, ...]
    family: str
    vision: Mapping[str, Any]
    quick: bool
    trunk: Mapping[str, Any]

    @property
    def embed_dim(self) -> int:
        """Of the reduced model: without a projection the trunk's width."""
        return WIDTH if self.vision.get("timm_proj") == "none" else EMBED

    @property
    def side(self) -> int:
        """Of its input, in pixels."""
        return int(self.trunk.get("img_size", 32))

    def build(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
        """A random model of this kind, in evaluation mode."""
        vision, text = dict(self.vision), dict(TINY_TEXT)
        with reduced(self.trunk):
            if vision.get("attentional_pool"):
                model = open_clip.CoCa(self.embed_dim, MULTIMODAL, text, vision)
            else:
                kind = open_clip.CustomTextCLIP
                model = kind(self.embed_dim, vision, text, quick_gelu=self.quick)
        return stirred(randomise(model, seed)).to(dtype).eval()


@torch.no_grad()
def stirred(model: nn.Module) -> nn.Module:
    """Batch norms as after training: no mean left at zero, no variance at one."""
    generator = torch.Generator().manual_seed(7)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.3, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model


@contextmanager
def reduced(trunk: Mapping[str, Any]) -> Iterator[None]:
    """timm makes its models smaller in here; open_clip's configs have no way to say so."""
    make, stem = timm.create_model, hybrid.ConvStem

    def small(name: str, **kwargs: Any) -> nn.Module:
        return make(name, **(kwargs | dict(trunk)))

    def narrow(channels: tuple[int, ...], **kwargs: Any) -> nn.Module:
        return stem(channels=(12, 12, WIDTH), **kwargs)

    timm.create_model, hybrid.ConvStem = small, narrow
    try:
        yield
    finally:
        timm.create_model, hybrid.ConvStem = make, stem


def kinds(names: Sequence[str]) -> list[Kind]:
    """The architectures, one of all that reduce to the same model: same modules and settings."""
    found: dict[str, Kind] = {}
    for name in names:
        config = define(name).config
        vision = config["vision_cfg"]
        kind = Kind(
            names=(name,),
            family=catalog.architecture(name).family,
            vision=_vision(vision),
            quick=bool(config.get("quick_gelu", False)),
            trunk=_trunk(vision.get("timm_model_name")),
        )
        told = _structure(kind.build(dtype=torch.float32).visual)
        if told in found:
            kind = replace(found[told], names=(*found[told].names, name))
        found[told] = kind
    return list(found.values())


def _structure(visual: nn.Module) -> str:
    """All that a tower is, but for the numbers in its weights."""
    modules = [
        (name, type(m).__name__, {k: v for k, v in vars(m).items() if isinstance(v, PLAIN)})
        for name, m in visual.named_modules()
    ]
    shapes = [(name, tuple(p.shape)) for name, p in visual.named_parameters()]
    return repr((modules, shapes))


def _vision(vision: dict[str, Any]) -> dict[str, Any]:
    if "timm_model_name" in vision:
        return vision | {"image_size": 32}
    if vision.get("attentional_pool"):
        return vision | SMALL | {"attn_pooler_heads": 4, "attn_pooler_queries": 6}
    return vision | SMALL | {"output_tokens": False}


def _trunk(name: str | None) -> dict[str, Any]:
    if name is None:
        return {}
    if name == "vit_base_mci_224":  # its stem has a stride of 16
        return {key: TRUNK[key] for key in ("embed_dim", "depth", "num_heads")} | {"img_size": 64}
    more = {"attn_pool_num_heads": 4} if "pe_core" in name else {}
    return TRUNK | more
