"""Adapters that show LeGrad a vision tower; modules are read and never patched.

Each family of towers is a class that implements `Tower` (`base.py`):

    clip.py    open_clip's ViT with a class token or the average of the patches (CLIP, CLIPA)
    coca.py    open_clip's ViT with an attentional pooler (CoCa)
    vit.py     timm's ViT with a class token or average, absolute or relative positions
               (MobileCLIP-B and -L, ViT medium)
    siglip.py  timm's ViT with attention pooling (SigLIP, SigLIP 2, NLLB-SigLIP)
    eva.py     timm's Eva (EVA01, EVA02)
    pe.py      timm's Eva with attention pooling (PE-Core)

`timm_tower.py` holds what the timm towers share.

A tower exposes the tokens before the first block, the blocks, split at the outputs of their heads,
and either a head from a pooled token to the embedding or, if it pools by attention, a `Pooler`.
This decides which attention the gradient is taken against (`legrad.method.relevance`): the
pooler's if there is one, else that of each block, in closed form for a `PlainBlock` and by
autograd through `Block.finish` for any other block. docs/models.md says how to add a tower.
"""

from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer as TimmVit
from timm.models.vision_transformer_relpos import VisionTransformerRelPos
from torch import nn

from legrad.towers.base import Block, Head, Mlp, PlainBlock, Pooler, Tower, unsupported
from legrad.towers.clip import ClipTower
from legrad.towers.coca import CocaTower
from legrad.towers.eva import EvaTower
from legrad.towers.pe import PerceptionTower
from legrad.towers.siglip import SiglipTower
from legrad.towers.vit import RelposTower, VitTower

__all__ = [
    "Block",
    "ClipTower",
    "CocaTower",
    "EvaTower",
    "Head",
    "Mlp",
    "PerceptionTower",
    "PlainBlock",
    "Pooler",
    "RelposTower",
    "SiglipTower",
    "Tower",
    "VitTower",
    "tower_of",
]


def tower_of(visual: nn.Module) -> Tower:
    """The adapter of a vision tower, chosen by the module's type and never by a name.

    Args:
        visual: the vision tower of an open_clip model, or a classifier of timm.

    Raises:
        UnsupportedModelError: no family covers it.
    """
    trunk = getattr(visual, "trunk", visual)
    pools = getattr(trunk, "attn_pool", None) is not None
    if type(trunk) is TimmVit:
        return SiglipTower(visual) if pools else VitTower(visual)
    if isinstance(trunk, Eva):
        return PerceptionTower(visual) if pools else EvaTower(visual)
    if isinstance(trunk, VisionTransformerRelPos):
        return RelposTower(visual)
    if trunk is not visual or type(trunk).__module__.startswith("timm."):
        raise unsupported(f"is timm's {type(trunk).__name__}")
    return CocaTower(visual) if pools else ClipTower(visual)
