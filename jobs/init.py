"""``legrad init``: a starter configuration, and what to do with it."""

from dataclasses import replace
from pathlib import Path

from jobs.options import ModelOptions
from pipeline.starter import write_starter

_MODEL = "ViT-B-16"
_TAG = "laion2b_s34b_b88k"


def init(source: str, model: ModelOptions, out: Path, force: bool) -> None:
    """Look, write, say what was found.

    Raises:
        UsageError: no data there, files in the way, or model options that do not fit.
    """
    if model.model is None and model.pretrained is None:
        model = replace(model, model=_MODEL, pretrained=_TAG)
    done = write_starter(source, model.config(), out, force=force)
    print(f"{source}: {done.survey.summary}")
    for note in done.notes:
        print(f"note: {note}")
    print(f"{done.config}: model {model.model}, source, output")
    print(f"{done.queries}: {done.classes} classes, {done.cues} cues, 2 baselines")
    print(f"next: look over both, then  legrad run {done.config} --check  and  legrad run "
          f"{done.config}")  # fmt: skip
