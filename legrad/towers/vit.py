"""timm's plain ViT with a class token or an average: MobileCLIP-B and -L, ViT medium."""

from typing import Any

from timm.models.vision_transformer import Block as TimmBlock

from legrad.towers.base import Block, unsupported
from legrad.towers.timm import TimmTower, vit_block


class VitTower(TimmTower):
    """Pre-norm blocks behind patches, or behind a convolutional stem (MobileCLIP-B).

    The blocks are CLIP's, so the closed form covers them. The layer score is the head (final norm,
    linear layer, normalisation) on the mean of all tokens.
    """

    def _block(self, module: Any) -> Block:
        if type(module) is not TimmBlock:
            raise unsupported(f"has blocks of type {type(module).__name__}")
        return vit_block(module)
