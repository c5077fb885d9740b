"""Settings of the audit: gates, data beside the run, and what it may cost."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from legrad.settings import PathOrUri, Settings

Share = Annotated[float, Field(gt=0, lt=1)]


class Gates(Settings):
    """What a finding must pass; chosen on drawn scenes before any of the tests were drawn.

    Attributes:
        separation: distance of a cue's two states within a class, in standard deviations, from
            which its presence counts as measured.
        gain: log-likelihood that two states must gain over class means alone.
        images: images of each state that a cue needs, and of the cue in the class.
        usual_share: share of a usual (median) class's images above which two states do not count
            as presence: a cue that most images have sets no class apart, and what looks like its
            absence is often something else that lowers the score.
        echo: correlation of presence with that of a better separated cue above which a cue counts
            as that one's echo: the model does not tell the two apart.
        class_images: images of a class below which nothing is claimed of it.
        odds_ratio: what the lower bound of the odds ratio must exceed.
        q: false discovery rate of Benjamini and Hochberg.
        balanced_accuracy: of a threshold learned from examples, on those held out.
        examples: labelled images that a cue needs for a threshold of its own.
        edits: images whose cue is verifiably gone after deletion (or there after insertion) that a
            test of reliance needs.
        clip_effect: what the lower bound of CLIP's change by deletion must exceed, in standard
            deviations of the class's text margin.
        probe_auc: what the lower bound of the probe's held-out AUC of class and rival must exceed.
        probe_share: what the lower bound of the share of the probe's evidence must exceed.
    """

    separation: Annotated[float, Field(gt=0)] = 4.0
    gain: Annotated[float, Field(ge=0)] = 10.0
    images: PositiveInt = 10
    usual_share: Share = 0.5
    echo: Share = 0.8
    class_images: PositiveInt = 20
    odds_ratio: Annotated[float, Field(ge=1)] = 1.5
    q: Share = 0.05
    balanced_accuracy: Share = 0.8
    examples: PositiveInt = 50
    edits: PositiveInt = 30
    clip_effect: Annotated[float, Field(ge=0)] = 0.5
    probe_auc: Share = 0.55
    probe_share: Share = 0.25


class RelianceConfig(Settings):
    """How much is edited for the claims of reliance, and where the edits are kept.

    Attributes:
        pairs: flagged associations that are tested, the strongest first.
        images: of each pair, at most.
        region: share of the cells that count as the cue, the hottest of its map, at most.
        floor: share of a map's maximum below which a cell does not count.
        object_region: the same of the class's own map, spared in the test of CLIP itself.
        ridge: of the probe's covariance, as a share of its mean eigenvalue.
        resamples: of the bootstrap.
        masks: folder of true masks, ``<cue>/<image_id>.png`` (bright = cue), taken where there is
            one instead of the hottest cells.
        work: folder for edits and probe maps; default ``_run/reliance`` of the run.
    """

    pairs: PositiveInt = 50
    images: PositiveInt = 200
    region: Share = 0.10
    floor: Annotated[float, Field(ge=0, lt=1)] = 0.3
    object_region: Share = 0.30
    ridge: Annotated[float, Field(gt=0)] = 0.1
    resamples: PositiveInt = 200
    masks: PathOrUri | None = None
    work: PathOrUri | None = None


class AuditConfig(Settings):
    """How a run's results are audited.

    Attributes:
        depth: ``association``: from stored scores and maps alone; ``reliance``: also what the
            model, and a linear probe trained on the labels, lose when the cue is deleted. Edits
            images and takes the model.
        gates: what a finding must pass.
        thresholds: score from which a cue is present, for cues whose threshold is known.
        examples: CSV or Parquet table with ``image_id``, ``cue`` and ``present``, from which
            thresholds are learned.
        decoys: cues that the data set lacks, beside the queries of role ``decoy``.
        discovered: cues that were found by looking at this data set; they are tested on the half
            of the images that `pipeline.audit.split` keeps for it.
        stratum: column of the results within whose values the association must hold as well.
        bootstrap: resamples.
        seed: of everything drawn.
        bins: cells of a score's histogram.
        max_classes: labels that are audited, the most frequent; the others count as one.
        maps: whether maps are read (evidence, mean maps); without them only scores are.
        evidence_images: images a class whose maps are compared.
        evidence_total: the same in all, which bounds the memory.
    """

    depth: Literal["association", "reliance"] = "association"
    gates: Gates = Gates()
    reliance: RelianceConfig = RelianceConfig()
    thresholds: dict[str, float] = Field(default_factory=dict)
    examples: PathOrUri | None = None
    decoys: tuple[str, ...] = ()
    discovered: tuple[str, ...] = ()
    stratum: str | None = None
    bootstrap: PositiveInt = 500
    seed: NonNegativeInt = 0
    bins: Annotated[int, Field(ge=32, le=4096)] = 512
    max_classes: PositiveInt = 2000
    maps: bool = True
    evidence_images: PositiveInt = 200
    evidence_total: PositiveInt = 20_000

    @model_validator(mode="after")
    def _one_role_each(self) -> "AuditConfig":
        both = sorted(set(self.decoys) & set(self.discovered))
        if both:
            raise ValueError(f"{both[0]} is in decoys and in discovered: expected one of them")
        return self
