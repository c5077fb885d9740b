"""CoCa: open_clip's ``VisionTransformer`` with an attentional pooler."""

from functools import cached_property
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from legrad.towers.base import Head, Mix, Pooler, unsupported
from legrad.towers.clip import ClipTower


class CocaTower(ClipTower):
    """256 learned queries attend over the tokens; the first becomes the embedding.

    Relevance is taken against the first query's row of attention. The layer score is the model's
    whole head: pooler, ``ln_post``, projection, normalisation; at the last layer it equals the
    model's similarity. LeGrad's published code leaves out ``ln_post`` and the normalisation, so its
    maps differ.

    Raises:
        UnsupportedModelError: no single query of the pooler becomes the embedding.
    """

    def __init__(self, visual: nn.Module) -> None:
        super().__init__(visual)
        if self.visual.attn_pool_contrastive is not None or self.visual.pool_type != "tok":
            raise unsupported("has an attentional pooler of which no single query is the embedding")

    @cached_property
    def pooler(self) -> Pooler:  # type: ignore[override]
        """The row of attention that becomes the embedding, and what follows."""
        module = self.visual.attn_pool
        attention: nn.MultiheadAttention = module.attn
        return Pooler(
            heads=int(attention.num_heads),
            attend=_first_row(module.query, module.ln_q, module.ln_k, attention),
            out=attention.out_proj,
            mlp=None,
            head=Head(self.visual.ln_post, self.visual.proj),
            skipped=self.prefix,
        )

    def embed(self, tokens: Tensor) -> Tensor:
        """See `Tower.embed`."""
        return self.pooler(tokens)


def _first_row(queries: Tensor, ln_q: nn.Module, ln_k: nn.Module, attention: Any) -> Mix:
    heads, width = int(attention.num_heads), int(attention.embed_dim)

    def attend(tokens: Tensor) -> tuple[Tensor, Tensor]:
        batch = len(tokens)
        normed = ln_k(tokens)
        q_bias, k_bias, v_bias = attention.in_proj_bias.split(width)
        if attention.in_proj_weight is not None:  # the pooler is as wide as the tower
            q_weight, k_weight, v_weight = attention.in_proj_weight.split(width)
        else:
            q_weight, k_weight = attention.q_proj_weight, attention.k_proj_weight
            v_weight = attention.v_proj_weight
        query = F.linear(ln_q(queries[:1]), q_weight, q_bias).expand(batch, 1, width)
        key, value = F.linear(normed, k_weight, k_bias), F.linear(normed, v_weight, v_bias)
        query, key, value = (
            rows.view(batch, -1, heads, width // heads).transpose(1, 2)
            for rows in (query, key, value)
        )
        mixed = F.scaled_dot_product_attention(query, key, value)  # (B, H, 1, d)
        return mixed.reshape(batch, width), value

    return attend
