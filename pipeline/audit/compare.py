"""Two audits side by side: what is new, what is gone, what moved beyond its error."""

import numpy as np
import pandas as pd
from scipy.stats import norm

_KEEP = ["share", "share_elsewhere", "association__effect", "association__low"]
_KEEP += ["association__high", "association__flag"]
_WIDTH = 2 * 1.959964


def changes(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """Pairs of both, by class and cue, with columns ``_before`` and ``_after``.

    Returns:
        ``change``: ``new``, ``gone``, ``kept`` (flagged before and after), ``class or cue is new``,
        ``class or cue is gone``, or empty; ``ratio``: odds ratio after / before; ``p``: of no
        change, from the widths of the two intervals, as if the data sets shared no image. Flags
        that changed first, then by p.
    """
    columns = ["class", "cue", *_KEEP]
    both = before[columns].merge(
        after[columns],
        on=["class", "cue"],
        how="outer",
        suffixes=("_before", "_after"),
        indicator="where",
    )
    flags = {
        when: both[f"association__flag_{when}"].eq(True).to_numpy(bool)  # missing: not flagged
        for when in ("before", "after")
    }
    was, now = flags["before"], flags["after"]
    found = np.select(
        [
            (both["where"] == "right_only").to_numpy(),
            (both["where"] == "left_only").to_numpy(),
            now & ~was,
            was & ~now,
            was & now,
        ],
        ["class or cue is new", "class or cue is gone", "new", "gone", "kept"],
        default="",
    )
    both["change"] = found
    logs = {when: np.log(both[f"association__effect_{when}"]) for when in ("before", "after")}
    errors = {
        when: (np.log(both[f"association__high_{when}"]) - np.log(both[f"association__low_{when}"]))
        / _WIDTH
        for when in ("before", "after")
    }
    gap = logs["after"] - logs["before"]
    both["ratio"] = np.exp(gap)
    both["p"] = 2 * norm.sf(np.abs(gap / np.hypot(errors["before"], errors["after"])))
    both["moved"] = was != now
    ordered = both.sort_values(["moved", "p"], ascending=[False, True], na_position="last")
    return ordered.drop(columns=["where", "moved"]).reset_index(drop=True)
