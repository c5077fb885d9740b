"""Edited images of a pair's page: what the probe says before and after, side by side."""

import base64
import io

from PIL import Image

from pipeline.auditor import Audit
from pipeline.report.contents import EditPicture, Limits

_EACH = 4
_MOST_PAIRS = 40
_QUALITY = 72


def edit_pictures(audit: Audit, limits: Limits) -> dict[tuple[str, str], list[EditPicture]]:
    """A few edits of each tested pair by (class, cue), the strongest pairs first.

    Empty where reliance was not asked for, or where no image may be shown.
    """
    if audit.settings.depth != "reliance" or not limits.images:
        return {}
    from pipeline.reliance.edits import Kind

    found = {}
    for pair in audit.reliance.listed[:_MOST_PAIRS]:
        made = audit.reliance.examples(pair.cls, pair.cue, min(_EACH, limits.each), limits.side)
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
