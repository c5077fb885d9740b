"""What was audited, what was left out, and what the claims mean and do not mean."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from legrad.models import catalog
from pipeline.audit.decoys import DecoyCheck
from pipeline.audit.findings import Findings
from pipeline.config import DEMO_ALIAS, AuditConfig
from pipeline.results.results import Results
from pipeline.schema import Status

MEANINGS: dict[str, str] = {
    "association": (
        "Cue and class come together in these data, beyond chance and by a factor. It does not say "
        "that any model uses the cue, nor that the cue is wrong: boats are on water."
    ),
    "clip_reliance": (
        "The similarity of the vision-language model to the class falls when the cue is deleted. "
        "About that model, not about yours."
    ),
    "probe_reliance": (
        "A linear model trained on these labels uses the cue. A model of yours may differ; hand in "
        "its predictions to ask about it."
    ),
}
ALWAYS = (
    "Cues nobody named are not found; a cue that no picture shows (blur, compression) has no heat.",
    "Whether a cue is a shortcut or belongs to the class is a judgement: core, spurious, unsure.",
)


@dataclass(frozen=True)
class Overview:
    """The head of an audit.

    Attributes:
        dataset: alias, or where the images are.
        model: name and weights of the model that scored.
        images: explained and labelled; the only ones that count.
        failed: rows without results, by status.
        unlabelled: explained rows without a label.
        copies: images whose bytes another image has, too.
        classes: label -> images.
        cues, decoys: names.
        measured: cues whose presence is known.
        not_measured: cue -> why not.
        flagged: pairs flagged, by claim.
        check: what the decoys came to.
        caveats: what the reader must know of these data.
        meanings: what each claim means and does not mean.
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
    found: Findings,
    claims: pd.DataFrame,
    dataset: str,
    fakes: tuple[str, ...],
    settings: AuditConfig,
) -> Overview:
    """Sum an audit up.

    Args:
        claims: all pairs with their flags.
    """
    known, presence = found.known, found.presence
    cues = presence.histograms.cues
    model = results.run["metadata"].get("model", {})
    failed = {s: n for s, n in known.statuses.items() if s != Status.OK}
    copies = _copies(results)
    real = ~claims["decoy"].to_numpy(bool)
    return Overview(
        dataset=dataset,
        model=" ".join(filter(None, [model.get("name"), model.get("pretrained")])),
        images=int(known.sizes.sum()),
        failed=failed,
        unlabelled=known.unlabelled,
        copies=copies,
        classes=dict(zip(known.classes, known.sizes.tolist(), strict=True)),
        cues=tuple(cue for cue in cues if cue not in fakes),
        decoys=fakes,
        measured=tuple(c for c, good in zip(cues, presence.measured, strict=True) if good),
        not_measured={c: why for c, why in zip(cues, presence.reason, strict=True) if why},
        flagged={claim: int(claims.loc[real, f"{claim}__flag"].sum()) for claim in MEANINGS},
        check=found.decoys,
        caveats=(
            *of_the_model(model, dataset),
            *_caveats(found, failed, copies, settings),
            *ALWAYS,
        ),
        meanings=MEANINGS,
    )


def of_the_model(model: Mapping[str, Any], dataset: str) -> tuple[str, ...]:
    """What must be said of the model that scored, given what the data are."""
    foreign = model.get("name") == catalog.MINI and dataset != DEMO_ALIAS
    return (
        (f"{catalog.MINI_WARNING}; nothing here says anything of your images",) if foreign else ()
    )


def _caveats(
    found: Findings, failed: dict[str, int], copies: int, settings: AuditConfig
) -> list[str]:
    known, gates = found.known, settings.gates
    told = []
    if not known.classes:
        told.append(
            "No image has a label, so nothing can be associated with a class: name the labels by "
            "source.label_field or source.labels and run again."
        )
    elif len(known.classes) == 1:
        told.append(f"There is one class only, {known.classes[0]}: nothing to compare it with.")
    small = int((known.sizes < gates.class_images).sum())
    if small:
        told.append(f"{small} classes have fewer than {gates.class_images} images: no claims.")
    if failed:
        rows = ", ".join(f"{count:,} {status}" for status, count in sorted(failed.items()))
        told.append(f"Rows without results count nowhere: {rows}.")
    if known.unlabelled and known.classes:
        told.append(f"{known.unlabelled:,} explained images have no label and count nowhere.")
    if copies:
        told.append(f"{copies:,} images are exact copies of others and count as if they were not.")
    if not found.decoys.cues:
        told.append(
            "No decoys ran along, so nothing says how often the audit is wrong: add cues that the "
            "data cannot have, with `role: decoy`."
        )
    elif found.decoys.flagged_pairs:
        told.append(
            f"{found.decoys.flagged_pairs} decoy pairs were flagged though the data lack them: "
            "read the findings with that in mind."
        )
    return told


def _copies(results: Results) -> int:
    """Rows whose bytes stood in an earlier row; by duckdb, which spills to disk where it must."""
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
