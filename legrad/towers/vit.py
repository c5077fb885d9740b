"""timm's ViT with a class token or an average, with absolute or relative positions."""

from typing import Any

from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer_relpos import RelPosBlock

from legrad.towers.base import Block, unsupported
from legrad.towers.timm_tower import TimmTower, vit_block


class VitTower(TimmTower):
    """Pre-norm blocks behind patches, or behind a convolutional stem (MobileCLIP-B).

    The blocks are CLIP's, so the closed form covers them. The layer score is the head (final norm,
    linear layer, normalisation) on the mean of all tokens.
    """

    def _block(self, module: Any) -> Block:
        if type(module) is not TimmBlock:
            raise unsupported(f"has blocks of type {type(module).__name__}")
        return vit_block(module)


class RelposTower(TimmTower):
    """Plain blocks with a bias on the attention logits that depends on the patches' distance.

    The biases were learned for the native grid, so the tower runs at its native size only.
    """

    def _block(self, module: Any) -> Block:
        if type(module) is not RelPosBlock:
            raise unsupported(f"has blocks of type {type(module).__name__}")
        positions: Any = module.attn.rel_pos or self.trunk.shared_rel_pos
        return vit_block(module, None if positions is None else positions.get_bias)

    def check_grid(self, grid: tuple[int, int]) -> None:
        """See `Tower.check_grid`."""
        if grid != self.native_grid:
            height, width = self.native_size
            raise ValueError(
                f"the vision tower's relative positions are for {height} x {width} pixels: "
                "leave image_size out"
            )
