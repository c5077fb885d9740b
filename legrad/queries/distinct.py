"""Texts that say only themselves: what a text's direction says beyond those of other texts.

Text features of one model have much in common, so the map of a text that names nothing in an
image still lights the object. A distinct direction is the residual of the text's direction after
orthogonal matching pursuit on the directions of other texts (Pati, Rezaiifar and Krishnaprasad
1993): step by step, the text most correlated with what is left is added, and the least-squares
combination of all texts added so far is subtracted.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
ATOMS = 6
"""Most texts that are subtracted from one."""
_SAME = 0.999  # cosine from which two texts are one to the model
_LEAST_LENGTH = 0.05  # of the residual of a unit vector; a smaller one is mostly rounding


def residual(direction: Array, others: Array, atoms: int = ATOMS) -> Array:
    """(E,) unit residual of a direction after matching pursuit on others.

    Args:
        direction: (E,) unit vector.
        others: (A, E) unit rows. Those that equal the direction are left out.
        atoms: how many of them are subtracted at most.

    Raises:
        ValueError: no other is left, or the others together say all that the direction says.
    """
    usable = others[np.abs(others @ direction) < _SAME]
    if not len(usable):
        raise ValueError("the model does not distinguish it from any of the other texts")
    chosen: list[int] = []
    left = direction
    for _ in range(min(atoms, len(usable))):
        correlation = np.abs(usable @ left)
        correlation[chosen] = -1
        chosen.append(int(correlation.argmax()))
        basis = usable[chosen].T
        left = direction - basis @ np.linalg.lstsq(basis, direction, rcond=None)[0]
    length = float(np.linalg.norm(left))
    if length < _LEAST_LENGTH:
        raise ValueError(f"{len(chosen)} other texts together say all that it says to the model")
    result: Array = left / length
    return result


def make_distinct(
    directions: Mapping[str, Array], distinct: Mapping[str, Sequence[str]]
) -> dict[str, Array]:
    """Replace directions by their residuals; all residuals are of the directions given.

    Args:
        directions: name -> (E,) unit vector.
        distinct: name -> names of the texts that it is made distinct from.

    Returns:
        name -> (E,) unit vector, for the names in ``distinct``.

    Raises:
        ValueError: a query cannot be made distinct; the message names it.
    """
    result = {}
    for name, others in distinct.items():
        try:
            result[name] = residual(directions[name], np.stack([directions[o] for o in others]))
        except ValueError as error:
            raise ValueError(f"query {name!r} cannot be made distinct: {error}") from error
    return result
