"""Settings of the audit: gates, data beside the run, and what it may cost."""

from typing import Annotated

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from legrad.settings import Settings

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


class AuditConfig(Settings):
    """How a run's results are audited.

    Attributes:
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

    gates: Gates = Gates()
    thresholds: dict[str, float] = Field(default_factory=dict)
    examples: str | None = None
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
