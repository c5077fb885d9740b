"""Every listed architecture against the oracle that hooks the model's own modules."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from legrad import LeGrad, from_open_clip, list_models
from legrad.method.pooler_gradient import fold_pooler, run_head
from legrad.models import catalog
from legrad.towers import tower_of
from tests.builders import images, tiny_clip, unit_directions
from tests.family_oracle import block_calls, embedding, explicit_attention, family_maps
from tests.legrad.compare import relative_error
from tests.legrad.test_unchanged import flags
from tests.oracle import oracle_maps
from tests.towers import Kind, kinds

FAMILIES = {"mini", "CLIP", "CLIPA", "CoCa", "SigLIP", "PE-Core", "EVA", "MobileCLIP", "ViT"}
POOLED = {"CoCa", "SigLIP", "PE-Core"}
QUERIES = 3


@pytest.fixture(scope="module")
def every() -> Iterator[list[Kind]]:
    """As if the package transformers were there: texts are no matter of the towers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalog, "_lacking", lambda text: None)
        listed = [model.name for model in list_models(untagged=True)]
        patch.setattr("tests.towers.catalog", catalog)
        yield kinds(listed)


@pytest.fixture(scope="module")
def one_of_each(every: list[Kind]) -> dict[str, Kind]:
    """By family, the first of its kinds; EVA01 and EVA02-E are kinds of their own."""
    found = {kind.family: kind for kind in reversed(every)}
    named = {name: kind for kind in every for name in kind.names}
    return found | {name: named[name] for name in ("EVA01-g-14", "EVA02-B-16", "EVA02-E-14")}


def explain(model: nn.Module, pixels: Tensor, directions: Tensor, **kwargs: Any) -> Any:
    return LeGrad(from_open_clip(model), **kwargs).explain(pixels, directions)


def sizes(kind: Kind) -> list[tuple[int, int]]:
    """The native size and, where positions can be interpolated, an oblong one."""
    own, cell = (kind.side, kind.side), kind.side // 4
    fixed = "relpos" in kind.vision.get("timm_model_name", "")
    return [own] if fixed else [own, (3 * cell, 5 * cell)]


def inputs(kind: Kind, size: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return images(1, 2, size, dtype), unit_directions(2, QUERIES, kind.embed_dim, dtype)


def test_every_listed_architecture_agrees_with_the_oracle(every: list[Kind]) -> None:
    assert {kind.family for kind in every} == FAMILIES
    assert sum(len(kind.names) for kind in every) > 100
    for kind in every:
        model = kind.build()
        for size in sizes(kind):
            pixels, directions = inputs(kind, size, torch.float64)
            expected, scores, features = family_maps(model, pixels, directions, 2)
            seen = explain(model, pixels, directions, layers=2)
            assert relative_error(seen.maps, expected) < 1e-6, kind.names
            torch.testing.assert_close(seen.scores, scores, atol=1e-12, rtol=0)
            torch.testing.assert_close(seen.image_features, features, atol=1e-12, rtol=0)
            spread = expected.std(dim=(-2, -1)) / expected.mean(dim=(-2, -1))
            assert spread.min() > 0.05, kind.names


def test_single_precision(every: list[Kind]) -> None:
    for kind in every:
        model = kind.build(seed=1, dtype=torch.float32)
        pixels, directions = inputs(kind, sizes(kind)[0], torch.float32)
        expected, scores, _ = family_maps(model, pixels, directions, 2)
        seen = explain(model, pixels, directions, layers=2)
        assert seen.maps.dtype == torch.float32
        assert relative_error(seen.maps, expected) < 1e-4, kind.names
        torch.testing.assert_close(seen.scores.double(), scores, atol=1e-4, rtol=0)


def test_the_two_oracles_agree() -> None:
    model = tiny_clip(0)
    pixels, directions = images(1, 2), unit_directions(2, QUERIES)
    left, right = (f(model, pixels, directions, 2) for f in (family_maps, oracle_maps))
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-13, rtol=1e-9)


def test_attention_is_far_from_uniform(every: list[Kind]) -> None:
    for kind in every:
        model: Any = kind.build()
        leaves: list[Tensor] = []
        with torch.no_grad():
            calls = block_calls(model, images(1, 1, (kind.side, kind.side))[0])
            with explicit_attention(leaves), torch.enable_grad():
                for block, args, kwargs in calls:
                    embedding(model.visual, block(*args, **kwargs))
        for rows in leaves:
            uniform = torch.log(torch.tensor(float(rows.shape[-1])))
            entropy = -torch.xlogy(rows.detach(), rows.detach()).sum(dim=-1).mean()
            assert entropy < 0.9 * uniform, kind.names


def test_a_poolers_score_is_the_models_own_at_the_last_layer(one_of_each: dict[str, Kind]) -> None:
    """The score that is differentiated goes through the whole head."""
    for family in POOLED:
        kind = one_of_each[family]
        model: Any = kind.build()
        pixels, directions = inputs(kind, (kind.side, kind.side), torch.float64)
        tower = tower_of(model.visual)
        tokens = tower.tokens(pixels)
        for block in tower.blocks:
            tokens = block(tokens)
        assert tower.pooler is not None
        folded = fold_pooler(tower.pooler, torch.float64)
        row = run_head(tower.pooler, folded, *tower.pooler.attend(tokens))
        own = model.encode_image(pixels, normalize=True) @ directions.T
        torch.testing.assert_close(row.unit @ directions.T, own, atol=1e-12, rtol=0)


def test_chunks_and_selections_change_nothing(one_of_each: dict[str, Kind]) -> None:
    select = torch.tensor([[True, False, True], [False, False, True]])
    for kind in one_of_each.values():
        model = kind.build()
        pixels, directions = inputs(kind, (kind.side, kind.side), torch.float64)
        whole = explain(model, pixels, directions)
        parts = explain(model, pixels, directions, chunk_bytes=1)
        assert relative_error(parts.maps, whole.maps) < 1e-12, kind.names
        some = LeGrad(from_open_clip(model)).explain(pixels, directions, select=select)
        assert some.maps.isfinite().all(dim=(-2, -1)).tolist() == select.tolist()
        torch.testing.assert_close(some.maps[select], whole.maps[select], atol=1e-15, rtol=1e-9)


def test_the_model_stays_as_it_was(one_of_each: dict[str, Kind]) -> None:
    for kind in one_of_each.values():
        model = kind.build(dtype=torch.float32)
        state, before = copy.deepcopy(model.state_dict()), flags(model)
        for size in sizes(kind):
            seen = explain(model, *inputs(kind, size, torch.float32))
            assert not seen.maps.requires_grad
        assert flags(model) == before, kind.names
        for name, tensor in model.state_dict().items():
            assert torch.equal(tensor, state[name]), (kind.names, name)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision(one_of_each: dict[str, Kind], precision: str) -> None:
    for kind in one_of_each.values():
        model = kind.build(dtype=torch.float32)
        pixels, directions = inputs(kind, (kind.side, kind.side), torch.float32)
        exact = explain(model, pixels, directions)
        rough = LeGrad(from_open_clip(model, precision=precision)).explain(pixels, directions)
        assert rough.maps.dtype == torch.float32
        assert 1e-5 < relative_error(rough.maps, exact.maps) < 0.2, kind.names
        short = LeGrad(from_open_clip(model, precision=precision)).explain(
            pixels, 1e-9 * directions
        )
        assert relative_error(short.maps * 1e9, rough.maps) < 1e-3, kind.names


def test_half_precision_weights(one_of_each: dict[str, Kind]) -> None:
    for kind in one_of_each.values():
        model = kind.build(dtype=torch.float32)
        pixels, directions = inputs(kind, (kind.side, kind.side), torch.float32)
        exact = explain(model, pixels, directions)
        rough = explain(copy.deepcopy(model).to(torch.bfloat16), pixels, directions)
        assert rough.maps.dtype == rough.scores.dtype == torch.float32
        assert 1e-5 < relative_error(rough.maps, exact.maps) < 0.3, kind.names


def test_batch_norms_in_training_are_refused(one_of_each: dict[str, Kind]) -> None:
    kind = one_of_each["MobileCLIP"]
    model = kind.build().train()
    with pytest.raises(ValueError, match=r"training mode.*model.eval\(\)"):
        explain(model, *inputs(kind, (kind.side, kind.side), torch.float64))


def test_relative_positions_have_one_size(every: list[Kind]) -> None:
    (kind,) = (kind for kind in every if "vit_relpos_medium_patch16_cls_224" in kind.names)
    with pytest.raises(ValueError, match="relative positions are for 32 x 32 pixels"):
        explain(kind.build(), *inputs(kind, (48, 32), torch.float64))


def test_other_inner_parts_are_refused(one_of_each: dict[str, Kind]) -> None:
    changes: dict[str, Any] = {
        "SigLIP": lambda trunk: setattr(trunk.attn_pool, "latent_len", 2),
        "MobileCLIP": lambda trunk: setattr(trunk.blocks[0], "attn", nn.Linear(2, 2)),
        "EVA02-B-16": lambda trunk: setattr(trunk, "rope", nn.Identity()),
    }
    words = {
        "SigLIP": "pooler of an unknown kind",
        "MobileCLIP": "attention of type Linear",
        "EVA02-B-16": "rotary positions of an unknown kind",
    }
    for name, change in changes.items():
        visual: Any = one_of_each[name].build().visual
        change(visual.trunk)
        with pytest.raises(ValueError, match=f"{words[name]}.*supported are"):
            tower_of(visual)
