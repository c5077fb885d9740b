"""Edited images of a pair's page: what the probe says before and after, side by side."""

import base64
import io
from dataclasses import dataclass

from PIL import Image

from pipeline.audit import Audit
from pipeline.report.model import Limits

_EACH = 4
_MOST_PAIRS = 40
_QUALITY = 72


@dataclass(frozen=True)
class EditPicture:
    """One edit, ready for a page.

    Attributes:
        deleted: the cue was deleted; else it was pasted in.
        before, after, control: data URIs of small WebP pictures.
        change, control_change: of the probe's logit, in shares of the distance of the classes.
    """

    deleted: bool
    before: str
    after: str
    control: str
    change: float
    control_change: float


def edit_pictures(audit: Audit, limits: Limits) -> dict[tuple[str, str], list[EditPicture]]:
    """A few edits of each tested pair by (class, cue), the strongest pairs first.

    Empty where reliance was not asked for, or where no image may be shown.
    """
    if audit.settings.depth != "reliance" or not limits.images:
        return {}
    from pipeline.audit.reliance.examples import examples
    from pipeline.audit.reliance.task import Kind

    found = {}
    for pair in audit.reliance.listed[:_MOST_PAIRS]:
        made = examples(audit.reliance, pair.cls, pair.cue, min(_EACH, limits.each), limits.side)
        found[pair.cls, pair.cue] = [
            EditPicture(
                one.kind is Kind.DELETED,
                _uri(one.before),
                _uri(one.after),
                _uri(one.control),
                one.change,
                one.control_change,
            )
            for one in made
        ]
    return found


def _uri(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "WEBP", quality=_QUALITY)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
