"""SigLIP, SigLIP 2, NLLB-SigLIP: timm's ViT with multi-head attention pooling (MAP)."""

from dataclasses import replace
from functools import cached_property
from typing import Any

import torch.nn.functional as F
from timm.layers.attention_pool import AttentionPoolLatent
from timm.layers.mlp import Mlp as TimmMlp
from torch import Tensor, nn

from legrad.towers.base import Head, Mix, Mlp, Pooler, layer_norm, unsupported
from legrad.towers.vit import VitTower


class SiglipTower(VitTower):
    """One learned query attends over the normed tokens; a residual MLP follows.

    Relevance is taken against the query's row of attention, on every explained layer's tokens. The
    layer score is the model's whole head: the trunk's final norm, pooler, MLP, projection if there
    is one, normalisation; at the last layer it equals the model's similarity. LeGrad's published
    code leaves out the final norm and zeroes cells where an empty prompt's map is hot; neither is
    done here.
    """

    def _check(self) -> None:
        self.map_pooler = checked_map(self.trunk)

    @cached_property
    def pooler(self) -> Pooler:  # type: ignore[override]
        """The query's row of attention, and what follows it."""
        front = 0 if self.trunk.pool_include_prefix else self.prefix
        return map_pooler(self.trunk, self.map_pooler, self.head, front)


def checked_map(trunk: Any) -> Any:
    """The trunk's pooler, checked to be of the kind that `map_pooler` reads.

    Raises:
        UnsupportedModelError: it is of another kind.
    """
    pool: Any = trunk.attn_pool
    plain = type(pool) is AttentionPoolLatent and type(pool.mlp) is TimmMlp
    inner = (pool.mlp.norm, trunk.fc_norm) if plain else ()
    if (
        not plain
        or pool.latent_len != 1
        or pool.pos_embed is not None
        or not all(isinstance(norm, nn.Identity) for norm in inner)
    ):
        raise unsupported(f"has a pooler of an unknown kind ({type(pool).__name__})")
    return pool


def map_pooler(trunk: Any, pool: Any, head: Head, front: int) -> Pooler:
    """The adapter of a trunk's pooler.

    Args:
        trunk: timm's vision transformer.
        pool: its pooler, from `checked_map`.
        head: head of the tower; its norm comes before the pooler, its linear layer after it.
        front: how many of the first tokens the pooler does not see.
    """
    return Pooler(
        heads=int(pool.num_heads),
        attend=_latent_row(pool, trunk.norm, front),
        out=pool.proj,
        mlp=Mlp(layer_norm(pool.norm, "pooler norm"), pool.mlp.fc1, pool.mlp.act, pool.mlp.fc2),
        head=replace(head, norm=None),
        skipped=int(trunk.num_prefix_tokens) - front,
    )


def _latent_row(pool: Any, norm: nn.Module, front: int) -> Mix:
    def attend(tokens: Tensor) -> tuple[Tensor, Tensor]:
        normed = norm(tokens)[:, front:]
        batch, count, _ = normed.shape
        query = pool.q(pool.latent).view(1, 1, pool.num_heads, -1).transpose(1, 2)
        key, value = (
            pool.kv(normed).view(batch, count, 2, pool.num_heads, -1).permute(2, 0, 3, 1, 4)
        )
        query, key = pool.q_norm(query).expand(batch, -1, -1, -1), pool.k_norm(key)
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H, 1, d)
        return mixed.reshape(batch, -1), value

    return attend
