"""Summary of an audit: what was audited, what was left out, and what the claims mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from legrad.models import catalog
from legrad.models.definition import MINI
from pipeline.audit.findings import Findings
from pipeline.audit.ranking import NO_CLASSIFIER, DecoyCheck
from pipeline.audit.scores import OTHER, Population
from pipeline.config import DEMO_ALIAS, AuditConfig, unmatched_labels
from pipeline.errors import counted
from pipeline.results.results import Results
from pipeline.schema import Status

MEANINGS: dict[str, str] = {
    "association": (
        "Cue and class occur together in these data more often than chance explains. It does not "
        "say that any model uses the cue, or that the cue is wrong: boats are on water."
    ),
    "clip_reliance": (
        "The vision-language model finds the image less similar to the class when the cue is "
        "deleted. It says something about that model, not about yours."
    ),
    "probe_reliance": (
        "A linear model trained on these labels uses the cue. Your own model may not; to test it, "
        "give the audit a run of your classifier, or its predictions."
    ),
    "model_reliance": (
        "Your classifier's logits or decisions change when the cue is deleted, more than when a "
        "patch of its shape is deleted elsewhere. It says something about this classifier only."
    ),
}
ALWAYS = (
    "Only named cues can be found, and a cue that no region shows (blur, compression) has no heat.",
    "Whether a cue is a shortcut or belongs to the class is a judgement: core, spurious, unsure.",
)


@dataclass(frozen=True)
class Overview:
    """Summary of an audit.

    Attributes:
        dataset: alias of the data set, or the URIs of its images.
        model: name and pretrained weights of the model that computed the scores.
        images: number of explained images with a label, the only ones that count.
        failed: number of rows without results, by status.
        unlabelled: number of explained rows without a label.
        copies: number of images that are exact copies of others.
        classes: label -> number of images.
        cues, decoys: their names.
        measured: names of the cues whose presence is known.
        not_measured: name of each other cue -> why its presence is not known.
        flagged: claim -> number of flagged pairs.
        check: how many decoys were flagged.
        caveats: what a reader must know about these data.
        meanings: what each claim means and does not mean; the claim about a classifier only if one
            was given.
    """

    dataset: str
    model: str
    images: int
    failed: dict[str, int]
    unlabelled: int
    copies: int
    classes: dict[str, int]
    cues: tuple[str, ...]
    decoys: tuple[str, ...]
    measured: tuple[str, ...]
    not_measured: dict[str, str]
    flagged: dict[str, int]
    check: DecoyCheck
    caveats: tuple[str, ...]
    meanings: dict[str, str]


def overview(
    results: Results,
    findings: Findings,
    claims: pd.DataFrame,
    dataset: str,
    decoys: tuple[str, ...],
    settings: AuditConfig,
) -> Overview:
    """Summarise an audit.

    Args:
        claims: all pairs with their flags.
    """
    population, presence = findings.population, findings.presence
    cues = presence.histograms.cues
    model = results.run["metadata"].get("model", {})
    failed = {s: n for s, n in population.statuses.items() if s != Status.OK}
    copies = _copies(results)
    real = ~claims["decoy"].to_numpy(bool)
    without = bool((claims["model_reliance__reason"] == NO_CLASSIFIER).all())
    meanings = {c: text for c, text in MEANINGS.items() if not (without and c == "model_reliance")}
    return Overview(
        dataset=dataset,
        model=" ".join(filter(None, [model.get("name"), model.get("pretrained")])),
        images=population.total,
        failed=failed,
        unlabelled=population.unlabelled,
        copies=copies,
        classes=dict(zip(population.classes, population.sizes.tolist(), strict=True)),
        cues=tuple(cue for cue in cues if cue not in decoys),
        decoys=decoys,
        measured=tuple(c for c, good in zip(cues, presence.measured, strict=True) if good),
        not_measured={c: why for c, why in zip(cues, presence.reason, strict=True) if why},
        flagged={claim: int(claims.loc[real, f"{claim}__flag"].sum()) for claim in meanings},
        check=findings.decoys,
        caveats=(
            *model_caveats(model, dataset),
            *_caveats(findings, failed, copies, settings),
            *_unmatched(results, population),
            *ALWAYS,
        ),
        meanings=meanings,
    )


def model_caveats(model: Mapping[str, Any], dataset: str) -> tuple[str, ...]:
    """Caveats about the model that computed the scores: the mini model knows drawn scenes only."""
    foreign = model.get("name") == MINI and dataset != DEMO_ALIAS
    return (
        (f"{catalog.MINI_WARNING}; nothing here says anything about your images",)
        if foreign
        else ()
    )


def _caveats(
    findings: Findings, failed: dict[str, int], copies: int, settings: AuditConfig
) -> list[str]:
    population, gates = findings.population, settings.gates
    caveats = []
    if not population.classes:
        caveats.append(
            "No image has a label, so nothing can be associated with a class: give a table of "
            "labels with --class-labels TABLE."
        )
    elif len(population.classes) == 1:
        only = population.classes[0]
        caveats.append(f"There is only one class, {only}: nothing to compare it with.")
    small = int((population.sizes < gates.class_images).sum())
    if small:
        caveats.append(
            f"{counted(small, 'class', 'classes')} with fewer than {gates.class_images} images: "
            "nothing is claimed about them."
        )
    if failed:
        rows = ", ".join(f"{count:,} {status}" for status, count in sorted(failed.items()))
        caveats.append(f"Rows without results are left out: {rows}.")
    if population.unlabelled and population.classes:
        caveats.append(
            f"{population.unlabelled:,} explained images have no label and are left out."
        )
    if population.has_sets:
        caveats.append(
            "Images have sets of labels: a class is compared with the images without it, and an "
            "image counts in each of its classes. A label that goes with another one may take its "
            "cues for its own."
        )
    if copies:
        caveats.append(f"{copies:,} images are exact copies of others, and each of them counts.")
    if not findings.decoys.cues:
        caveats.append(
            "There are no decoys, so nothing shows how often the audit is wrong: add cues that "
            "the data cannot have, with `role: decoy`."
        )
    elif findings.decoys.flagged_pairs:
        caveats.append(
            f"{findings.decoys.flagged_pairs} decoy pairs were flagged although the data do not "
            "have them: read the findings with that in mind."
        )
    return caveats


def _unmatched(results: Results, population: Population) -> tuple[str, ...]:
    """A caveat on class queries whose label no image has."""
    if not population.classes or OTHER in population.classes:  # said already; not all are known
        return ()
    return unmatched_labels(results.queries, population.classes)


def _copies(results: Results) -> int:
    """Number of rows whose bytes an earlier row has; by DuckDB, which spills to disk if it must."""
    import duckdb

    if "sha256" not in results.dataset.schema.names:
        return 0
    scan = results.dataset.scanner(
        columns=["sha256"], filter=pc.field("status") == str(Status.OK)
    ).to_reader()
    assert isinstance(scan, pa.RecordBatchReader)
    with duckdb.connect() as database:
        database.register("hashes", scan)
        query = "select count(sha256) - count(distinct sha256) from hashes"
        row = database.execute(query).fetchone()
    return int(row[0]) if row else 0
