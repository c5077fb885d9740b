"""Settings of the audit: thresholds of its tests, additional data, and limits of its cost."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from legrad.settings import PathOrUri, Settings

Share = Annotated[float, Field(gt=0, lt=1)]


class Gates(Settings):
    """Thresholds that a finding must pass; chosen on drawn scenes other than those of the tests.

    Attributes:
        separation: least distance between the scores with and without a cue, within classes and
            in standard deviations, for the cue's presence to count as measured.
        gain: least gain in log-likelihood of a model with two states over class means alone.
        images: least number of images in each state of a cue, and with the cue in a class.
        usual_share: share of a typical (median) class's images with the cue above which the two
            states do not count as presence: a cue that most images have does not set a class apart,
            and what looks like its absence is often something else that lowers the score.
        echo: correlation with the presence of a better separated cue above which a cue counts as
            an echo of that cue: the model does not tell the two apart.
        class_images: least number of images of a class for a claim about it.
        odds_ratio: value that the lower bound of the odds ratio must exceed.
        q: false discovery rate (Benjamini and Hochberg).
        balanced_accuracy: least balanced accuracy, on held-out examples, of a threshold that was
            learned from examples.
        examples: least number of labelled images to learn a cue's threshold from.
        edits: least number of images for a test of reliance in which the cue is verifiably gone
            after deletion, or there after insertion.
        clip_effect: value that the lower bound of the change of CLIP's text margin by deletion
            must exceed, in standard deviations of the class's margin.
        probe_auc: value that the lower bound of the probe's held-out AUC, class against rival, must
            exceed.
        probe_share: value that the lower bound of the cue's share in the probe's evidence must
            exceed.
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
    """How many images are edited for the claims of reliance, and where the edits are kept.

    Attributes:
        pairs: number of flagged associations that are tested, the strongest first.
        images: most images of each pair.
        region: largest share of a map's cells, the hottest ones, that counts as the cue.
        floor: share of a map's maximum below which a cell never counts as the cue.
        object_region: largest share of the cells of the class's own map that counts as the object,
            which the test of CLIP itself spares.
        ridge: regularisation of the probe's covariance, as a share of its mean eigenvalue.
        resamples: number of bootstrap resamples.
        masks: folder of true masks, ``<cue>/<image_id>.png`` (bright = cue), which replace the
            hottest cells where there is one.
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
        depth: ``association``: uses stored scores and maps alone; ``reliance``: also measures what
            the model, and a linear probe trained on the labels, lose when the cue is deleted. This
            edits images and runs the model.
        gates: thresholds that a finding must pass.
        thresholds: score from which a cue is present, for cues whose threshold is known.
        examples: CSV or Parquet table with ``image_id``, ``cue`` and ``present``, from which
            thresholds are learned.
        decoys: cues that the data set lacks, in addition to the queries of role ``decoy``.
        discovered: cues that were found by looking at this data set; they are tested on the half
            of the images that `pipeline.audit.split` keeps for that.
        stratum: column of the results; the association must also hold within its values.
        bootstrap: number of bootstrap resamples.
        seed: seed of all random choices.
        bins: number of bins of a score's histogram.
        max_classes: number of labels that are audited, the most frequent ones; all others count as
            one class.
        maps: whether maps are read (evidence, mean maps); false reads scores only.
        evidence_images: number of images of each class whose maps are compared.
        evidence_total: largest number of them over all classes, which bounds the memory.
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
            raise ValueError(f"{both[0]} is in decoys and in discovered; expected only one of them")
        return self
