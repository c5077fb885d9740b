"""Settings of the audit: gates, tables of the user, and limits of the cost."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from legrad.settings import PathOrUri, Settings

Share = Annotated[float, Field(gt=0, lt=1)]


class Gates(Settings):
    """Conditions for a finding; chosen on drawn scenes before any of the test scenes were drawn.

    Attributes:
        separation: smallest distance of a cue's two states within a class, in standard deviations,
            at which its presence counts as measured.
        gain: log-likelihood that two states must gain over class means alone.
        images: number of images that each state of a cue needs, and that must have the cue in the
            class.
        usual_share: share of the images of a usual (median) class above which two states do not
            count as presence. A cue that most images have does not distinguish a class, and what
            looks like its absence is often something else that lowers the score.
        echo: correlation of presence with that of a better separated cue above which a cue counts
            as an echo of the other, because the model does not distinguish the two.
        class_images: number of images that a class needs for any claim.
        odds_ratio: what the lower bound of the odds ratio must exceed.
        q: largest false discovery rate (Benjamini, Hochberg).
        balanced_accuracy: smallest balanced accuracy on held-out examples of a threshold that was
            learned from examples.
        examples: number of labelled images that a cue needs for a learned threshold.
        labels: number of answers that a test by labels needs in the class, and elsewhere.
        edits: number of images in which deletion really removed the cue (or insertion added it)
            that a test of reliance needs.
        clip_effect: what the lower bound of the fall of CLIP's text margin by deletion must exceed,
            in standard deviations of this margin over the class.
        probe_auc: what the lower bound of the probe's held-out AUC, class against rival, must
            exceed.
        probe_share: what the lower bound of the cue's share of the probe's evidence must exceed.
        model_auc: what the lower bound of a classifier's AUC, class against rival, must exceed.
        model_share: what the lower bound of the cue's share of a classifier's logit gap must
            exceed; a pair is flagged if it passes this gate or the next one.
        model_flips: what the lower bound of the share of decisions that deletion of the cue
            changes, beyond the control, must exceed.
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
    labels: PositiveInt = 20
    edits: PositiveInt = 30
    clip_effect: Annotated[float, Field(ge=0)] = 0.5
    probe_auc: Share = 0.55
    probe_share: Share = 0.25
    model_auc: Share = 0.55
    model_share: Share = 0.25
    model_flips: Share = 0.02


class RelianceConfig(Settings):
    """How much is edited for the claims of reliance, and where the edits are stored.

    Attributes:
        pairs: largest number of flagged associations to test, the strongest first.
        images: largest number of images of each pair.
        region: largest share of the cells that count as the cue: the hottest of its map.
        floor: share of a map's maximum below which a cell does not count.
        object_region: largest share of the cells that count as the object: the hottest of the
            class's map. The test of CLIP does not delete them.
        ridge: what is added to the covariance of the probe, as a share of its mean eigenvalue.
        resamples: number of bootstrap resamples.
        masks: folder of true masks, ``<cue>/<image_id>.png`` (bright = cue), which are used instead
            of the hottest cells where they exist.
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
    """How the results of a run are audited.

    Attributes:
        depth: ``association`` uses stored scores and maps alone; ``reliance`` also tests what the
            model, and a linear probe trained on the labels, lose when the cue is deleted, for which
            it loads the model and edits images.
        gates: conditions for a finding.
        reliance: settings of the depth ``reliance``.
        thresholds: score from which a cue is present, for cues whose threshold is known.
        classifier: output of a run of your own classifier over the same images, for the claim
            ``model_reliance``; the depth is then ``reliance``.
        examples: CSV or Parquet table with ``image_id``, ``cue`` and ``present``, from which
            thresholds are learned.
        decoys: cues that the data set does not have, besides the queries with role ``decoy``.
        discovered: cues that were found by looking at this data set; they are tested on the half
            of the images that `pipeline.audit.split.confirming` reserves for it.
        stratum: column of the results within whose values the association must hold as well.
        suspicions: whether pairs get a suspicion, for which the run's model encodes words once.
        bootstrap: number of bootstrap resamples.
        seed: random seed of all draws.
        bins: number of bins of the score histograms.
        max_classes: number of labels that are audited, the most frequent; the others are merged.
        maps: whether maps are read, for evidence and mean maps.
        evidence_images: number of images of each class whose maps are compared.
        evidence_total: largest number of such images of all classes, which bounds the memory.
    """

    depth: Literal["association", "reliance"] = "association"
    gates: Gates = Gates()
    reliance: RelianceConfig = RelianceConfig()
    thresholds: dict[str, float] = Field(default_factory=dict)
    classifier: PathOrUri | None = None
    examples: PathOrUri | None = None
    decoys: tuple[str, ...] = ()
    discovered: tuple[str, ...] = ()
    stratum: str | None = None
    suspicions: bool = True
    bootstrap: PositiveInt = 500
    seed: NonNegativeInt = 0
    bins: Annotated[int, Field(ge=32, le=4096)] = 512
    max_classes: PositiveInt = 2000
    maps: bool = True
    evidence_images: PositiveInt = 200
    evidence_total: PositiveInt = 20_000

    @model_validator(mode="before")
    @classmethod
    def _as_deep_as_needed(cls, data: Any) -> Any:
        """A classifier sees edited images, so it asks for the depth ``reliance``."""
        if isinstance(data, dict) and data.get("classifier") and "depth" not in data:
            return data | {"depth": "reliance"}
        return data

    @model_validator(mode="after")
    def _one_role_each(self) -> "AuditConfig":
        both = sorted(set(self.decoys) & set(self.discovered))
        if both:
            raise ValueError(f"{both[0]} is in decoys and in discovered: expected one of them")
        if self.classifier and self.depth != "reliance":
            raise ValueError("classifier: needs depth reliance; leave depth out")
        return self
