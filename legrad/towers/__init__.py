"""What the gradient needs of a vision tower, read from its module and never patched into it.

A family is one class behind the interface `Tower` (`base.py`), one family a file:

    clip.py    open_clip's ViT, class token or average of the patches (CLIP, CLIPA)
    coca.py    the same with an attentional pooler (CoCa)
    vit.py     timm's ViT, class token or average (MobileCLIP-B and -L, ViT medium)
    siglip.py  timm's ViT with attention pooling (SigLIP, SigLIP 2, NLLB-SigLIP)
    eva.py     timm's Eva (EVA01, EVA02)
    pe.py      timm's Eva with attention pooling (PE-Core)
    relpos.py  timm's ViT with relative positions

A family exposes tokens before the first block, blocks cut where the heads end, and a head from a
pooled token to the embedding; or a `Pooler`, where the tower pools by attention. Which gradient is
taken follows from that (`legrad.method`): a pooler's, else each block's own, in closed form for
a `PlainBlock` and by autograd through `Block.finish` for any other.

To add one: write the class, name it in `tower_of`, give its timm trunks to
`legrad.models.timm_figures`, and let tests/legrad/test_families.py build it: the oracle there
needs to know nothing of the class.
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
    """The adapter of an open_clip vision tower, chosen by the module's type and never by a name.

    Raises:
        UnsupportedModelError: no family covers it.
    """
    trunk = getattr(visual, "trunk", None)
    if trunk is None:
        pools = getattr(visual, "attn_pool", None) is not None
        return CocaTower(visual) if pools else ClipTower(visual)
    pools = getattr(trunk, "attn_pool", None) is not None
    if isinstance(trunk, TimmVit):
        return SiglipTower(visual) if pools else VitTower(visual)
    if isinstance(trunk, Eva):
        return PerceptionTower(visual) if pools else EvaTower(visual)
    if isinstance(trunk, VisionTransformerRelPos):
        return RelposTower(visual)
    raise unsupported(f"is timm's {type(trunk).__name__}")
