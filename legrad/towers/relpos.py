"""timm's ViT with relative positions, learned for one grid."""

from typing import Any

from timm.models.vision_transformer_relpos import RelPosBlock

from legrad.towers.base import Block, unsupported
from legrad.towers.timm import TimmTower, vit_block


class RelposTower(TimmTower):
    """Plain blocks whose attention logits have a bias by distance; it fits the native grid only."""

    def _block(self, module: Any) -> Block:
        if type(module) is not RelPosBlock:
            raise unsupported(f"has blocks of type {type(module).__name__}")
        own: Any = module.attn.rel_pos or self.trunk.shared_rel_pos
        return vit_block(module, None if own is None else own.get_bias)

    def check_grid(self, grid: tuple[int, int]) -> None:
        """See `Tower.check_grid`."""
        if grid != self.native_grid:
            height, width = self.native_size
            raise ValueError(
                f"the vision tower's relative positions are for {height} x {width} pixels: "
                "leave image_size out"
            )
