"""LeGrad by plain autograd through the model's own modules, for every family of tower.

It knows open_clip's and timm's modules and nothing of the package: the module runs its own forward
pass, while the fused attention is replaced by an explicit softmax whose matrix is a leaf.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from torch import Tensor, nn


@contextmanager
def explicit_attention(leaves: list[Tensor]) -> Iterator[None]:
    """Every attention in here is softmax(q k / sqrt d + mask) @ v; notes the matrices in order."""
    fused = F.scaled_dot_product_attention

    def attention(
        q: Tensor, k: Tensor, v: Tensor, attn_mask: Any = None, *_: Any, **__: Any
    ) -> Tensor:
        logits = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5
        logits = logits if attn_mask is None else logits + attn_mask
        leaf = torch.softmax(logits, dim=-1).detach().requires_grad_()
        leaves.append(leaf)
        return leaf @ v

    F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = fused


def pools_by_attention(visual: nn.Module) -> bool:
    owner = getattr(visual, "trunk", visual)
    return getattr(owner, "attn_pool", None) is not None


def own_blocks(visual: Any) -> list[nn.Module]:
    trunk = getattr(visual, "trunk", None)
    return list(visual.transformer.resblocks if trunk is None else trunk.blocks)


def embedding(visual: Any, tokens: Tensor) -> Tensor:
    """The model's own head on the tokens after a block, (1, T, D) -> (E,)."""
    if hasattr(visual, "trunk"):
        return visual.head(visual.trunk.forward_head(visual.trunk.norm(tokens)))[0]
    return (visual._pool(tokens)[0] @ visual.proj)[0]


def mean_embedding(visual: Any, tokens: Tensor) -> Tensor:
    """The head on the mean of all tokens instead of the token or mean that the model pools."""
    mean = tokens.mean(dim=1)
    if hasattr(visual, "trunk"):
        trunk = visual.trunk
        return visual.head(trunk.head(trunk.fc_norm(trunk.norm(mean))))[0]
    return (visual.ln_post(mean) @ visual.proj)[0]


def resized(model: nn.Module, size: tuple[int, int]) -> nn.Module:
    """A copy at another input size, as timm and open_clip resize their own towers."""
    model = copy.deepcopy(model)
    visual: Any = model.visual
    if hasattr(visual, "trunk"):
        if tuple(visual.trunk.patch_embed.img_size) != size:
            visual.trunk.set_input_size(size)
    elif tuple(visual.image_size) != size:
        state = {"visual.positional_embedding": visual.positional_embedding.detach()}
        visual.image_size, visual.grid_size = size, _grid(visual, size)
        resize_pos_embed(state, model)
        visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"])
    return model


Calls = list[tuple[nn.Module, tuple[Any, ...], dict[str, Any]]]


def block_calls(model: Any, image: Tensor) -> Calls:
    """Every block with the arguments the model's own forward pass calls it with."""
    return calls_of(own_blocks(model.visual), lambda: model.encode_image(image[None]))


def calls_of(blocks: Sequence[nn.Module], run: Callable[[], Any]) -> Calls:
    """Every block with the arguments that a forward pass calls it with."""
    calls: list[Any] = []

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append((module, args, kwargs))

    hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in blocks]
    run()
    for hook in hooks:
        hook.remove()
    return calls


def layer_maps(visual: Any, call: Any, directions: Tensor) -> Tensor:
    """Relevance (Q, keys) of one block, class token included where it is a key."""
    pools = pools_by_attention(visual)
    pooled = embedding if pools else mean_embedding

    def scores(tokens: Tensor) -> Tensor:
        feature = pooled(visual, tokens)
        return directions @ (feature / feature.norm())

    return relevance(call, scores, pools=pools)


def relevance(call: Any, scores: Callable[[Tensor], Tensor], *, pools: bool) -> Tensor:
    """Relevance (Q, keys) by the block's attention, or by that of a pooler within ``scores``."""
    block, args, kwargs = call
    leaves: list[Tensor] = []
    with torch.enable_grad(), explicit_attention(leaves):
        tokens = block(*args, **kwargs)
        if pools:
            tokens = tokens.detach()
            leaves.clear()
        values = scores(tokens)
        (leaf,) = leaves
        rows = []
        for value in values:
            (gradient,) = torch.autograd.grad(value, leaf, retain_graph=True)
            clamped = gradient[0].clamp(min=0)  # (H, rows, keys)
            if pools:
                assert not clamped[:, 1:].any(), "only the first row of a pooler leads on"
                clamped = clamped[:, :1]
            rows.append(clamped.mean(dim=(0, 1)))
    return torch.stack(rows)


def classifier_maps(
    module: nn.Module, pixels: Tensor, classes: Sequence[int], layers: int
) -> tuple[Tensor, Tensor]:
    """Maps (B,C,h,w) of the logits of some classes, and all logits, in float64; timm's modules."""
    size = (int(pixels.shape[2]), int(pixels.shape[3]))
    timm_model: Any = copy.deepcopy(module).double().eval()
    if tuple(timm_model.patch_embed.img_size) != size:
        timm_model.set_input_size(size)
    for parameter in timm_model.parameters():
        parameter.requires_grad_()
    pools = getattr(timm_model, "attn_pool", None) is not None

    def scores(tokens: Tensor) -> Tensor:
        normed = timm_model.norm(tokens if pools else tokens.mean(dim=1))
        if pools:
            return timm_model.forward_head(normed)[0, list(classes)]
        return timm_model.head(timm_model.fc_norm(normed))[0, list(classes)]

    maps, grid = [], tuple(timm_model.patch_embed.grid_size)
    for image in pixels.double():
        with torch.no_grad():
            calls = calls_of(timm_model.blocks, lambda image=image: timm_model(image[None]))
        rows = torch.stack([relevance(call, scores, pools=pools) for call in calls[-layers:]])
        keys = rows.sum(dim=0)
        maps.append(keys[:, keys.shape[1] - grid[0] * grid[1] :].unflatten(-1, grid))
    with torch.no_grad():
        return torch.stack(maps), timm_model(pixels.double())


def family_maps(
    model: nn.Module, pixels: Tensor, directions: Tensor, layers: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (B,Q,h,w), scores (B,Q) and unit features (B,E) in float64."""
    size = (int(pixels.shape[2]), int(pixels.shape[3]))
    model = resized(model, size).double().eval()
    for parameter in model.parameters():  # or torch takes a fast path around the attention
        parameter.requires_grad_()
    visual: Any = model.visual
    pixels, directions = pixels.double(), directions.double()
    found, features = [], []
    for image in pixels:
        with torch.no_grad():
            calls = block_calls(model, image)
            feature = model.encode_image(image[None], normalize=True)[0]
        features.append(feature)
        keys = sum(layer_maps(visual, call, directions) for call in calls[-layers:])
        assert isinstance(keys, Tensor)
        found.append(keys)
    maps = torch.stack(found)
    grid = _grid(visual, size)
    maps = maps[..., maps.shape[-1] - grid[0] * grid[1] :]  # what stands in front are no patches
    own = torch.stack(features)
    return maps.unflatten(-1, grid), own @ directions.T, own


def _grid(visual: Any, size: tuple[int, int]) -> tuple[int, int]:
    if hasattr(visual, "trunk"):
        return tuple(visual.trunk.patch_embed.grid_size)
    return size[0] // visual.patch_size[0], size[1] // visual.patch_size[1]
