"""Split a data set by a hash of image_id: a cue found on one half is confirmed on the other."""

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def folds(image_ids: Sequence[str], count: int = 2) -> NDArray[np.int64]:
    """(n,) fold of each image, from 0 to ``count`` - 1; it depends on the id alone."""
    digests = b"".join(blake2b(str(name).encode(), digest_size=8).digest() for name in image_ids)
    return (np.frombuffer(digests, dtype="<u8") % np.uint64(count)).astype(np.int64)


def confirming(image_ids: Sequence[str]) -> NDArray[np.bool_]:
    """(n,) the half on which a discovered cue is tested; look for cues in the other half."""
    result: NDArray[np.bool_] = folds(image_ids) == 1
    return result
