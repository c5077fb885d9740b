"""Claims from edits with a known effect: flags, reasons, and what each image contributes."""

import numpy as np
import pytest

from pipeline.config.audit_settings import AuditConfig
from pipeline.reliance.claims import Claims, EditedPair, TextDirections
from pipeline.reliance.edit_examples import ProbeContrast, per_image
from pipeline.reliance.edits import Deletion, Insertion, PairEdits
from pipeline.reliance.probe import GROUPS, collect, cross_fitted, fit, probe_quality
from pipeline.reliance.regions import FILLS
from tests.reliance.made import CUE, STEP, WIDTH, Embedded, made

SETTINGS = AuditConfig.model_validate({"reliance": {"resamples": 60}})
TEXTS = np.eye(WIDTH, dtype=np.float32)


def edits(world: Embedded, most: int = 100, *, strength: float = 1.0) -> PairEdits:
    """The cue taken from images of a, and put into images of b; controls change nothing."""
    step = (strength * STEP * CUE).astype(np.float32)
    rows = np.flatnonzero((world.labels == "a") & world.has)[:most]
    bare = np.flatnonzero((world.labels == "b") & ~world.has)[:most]
    before, targets = (world.vectors[chosen].astype(np.float32) for chosen in (rows, bare))
    fills = len(FILLS)
    deletion = Deletion(
        tuple(world.ids[row] for row in rows),
        before,
        np.stack([before - step] * fills),
        np.stack([before] * fills),
    )
    insertion = Insertion(tuple(world.ids[row] for row in bare), targets, targets + step, targets)
    return PairEdits(len(rows), deletion, deletion, {"other": deletion}, insertion, ())


def claims_of(world: Embedded, clip: np.ndarray) -> Claims:
    """Claims whose text of class a lies along ``clip``."""
    findings = world.findings
    sums = collect(world, findings.population, findings.presence, ["cue", "other"])
    probes = cross_fitted(sums, np.ones(GROUPS), 0.1)
    rivals = fit(sums, np.ones(GROUPS), 0.1).rivals(sums.shared, 20)
    directions = TextDirections(
        cues={"cue": (0.1 * CUE).astype(np.float32)},
        classes={"a": clip.astype(np.float32), "b": TEXTS[4]},
        controls={("a", "cue"): CUE.astype(np.float32)},
    )
    quality = probe_quality(world, findings.population, probes, rivals)
    return Claims(findings, sums, quality, directions, SETTINGS)


def claim(world: Embedded, made_edits: PairEdits, clip: np.ndarray = TEXTS[3]) -> dict[str, object]:
    frame = claims_of(world, clip).frame([EditedPair("a", "cue", "b", made_edits)])
    return {str(name): value for name, value in frame.iloc[0].items()}


def test_a_label_that_is_the_cue_is_flagged_for_the_probe_alone() -> None:
    world = made(600)
    row = claim(world, edits(world))
    assert row["probe_reliance__flag"]
    assert row["probe_reliance__reason"] == ""
    assert 0.25 < row["probe_reliance__low"] < row["probe_reliance__effect"]  # type: ignore[operator]
    assert row["probe_reliance__insertion"] == pytest.approx(1.2, abs=0.3)
    assert row["probe_reliance__joint_with"] == "other"
    assert row["probe_reliance__removed"] == 1.0
    assert not row["clip_reliance__flag"]  # its text has no part along the cue
    assert row["clip_reliance__control"] > 0.5  # type: ignore[operator]


def test_a_model_whose_text_is_the_cue_is_flagged() -> None:
    world = made(600)
    row = claim(world, edits(world), CUE + TEXTS[3])
    assert row["clip_reliance__flag"]
    assert row["clip_reliance__low"] > 0.5  # type: ignore[operator]


def test_separable_classes_are_not_flagged() -> None:
    world = made(600, apart=5.0)
    row = claim(world, edits(world))
    assert not row["probe_reliance__flag"]
    assert "25%" in str(row["probe_reliance__reason"])


@pytest.mark.parametrize(("most", "strength"), [(20, 1.0), (100, 0.1)])
def test_few_images_or_a_cue_that_stays_are_not_testable(most: int, strength: float) -> None:
    world = made(600)
    row = claim(world, edits(world, most, strength=strength))
    for name in ("probe_reliance", "clip_reliance"):
        assert str(row[f"{name}__reason"]).startswith("not testable: ")
        assert not row[f"{name}__flag"]
        assert np.isnan(row[f"{name}__effect"])  # type: ignore[call-overload]


def test_classes_by_chance_are_not_flagged() -> None:
    world = made(600, in_a=0.5, in_b=0.5)
    row = claim(world, edits(world))
    assert not row["probe_reliance__flag"]
    assert "chance" in str(row["probe_reliance__reason"])


def test_no_pair_is_an_empty_table_with_all_columns() -> None:
    world = made(200)
    frame = claims_of(world, TEXTS[3]).frame([])
    assert frame.empty
    assert {"class", "cue", "probe_reliance__rival", "clip_reliance__control"} <= set(frame)


def test_every_image_loses_what_it_lost() -> None:
    world = made(600)
    claims = claims_of(world, TEXTS[3])
    pair = EditedPair("a", "cue", "b", edits(world, 50))
    index = world.findings.population.index
    probes = cross_fitted(claims.sums, np.ones(GROUPS), 0.1)
    frame = per_image(claims, pair, ProbeContrast(probes, index["a"], index["b"]))
    assert frame["counts"].all()
    assert (frame["control_change"] == 0).all()
    deleted, inserted = (frame[frame["kind"] == kind] for kind in ("deleted", "inserted"))
    assert len(deleted) == len(inserted) == 50
    fall = deleted["cue_before"] - deleted["cue_after"]
    assert fall.to_numpy() == pytest.approx(0.1 * STEP, abs=1e-5)
    assert (deleted["probe_change"] < -0.5).all()
    assert (inserted["probe_change"] > 0.5).all()
