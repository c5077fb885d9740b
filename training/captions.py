"""Captions about the drawn world, and which of them are true of which scene."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from legrad.mini.world import BACKGROUNDS, OBJECTS, OVERLAYS, SceneSpec
from training.distractors import DISTRACTORS

BASELINES: tuple[str, ...] = ("a photo", "an image", "a picture")
TEMPLATES: tuple[str, ...] = ("{}", "{}", "a photo of {}", "an image of {}", "a picture of {}")
BACKGROUND_PHRASES: dict[str, tuple[str, ...]] = {
    "grass": ("grass", "green grass"),
    "water": ("water", "the water"),
    "sand": ("sand", "the sand"),
    "brick": ("brick", "a brick wall"),
    "snow": ("snow", "the snow"),
    "night sky": ("night sky", "the night sky", "a night sky"),
    "wood": ("wood", "wooden boards"),
    "tiles": ("tiles", "a tiled floor"),
    "clouds": ("clouds", "a cloudy sky"),
    "pebbles": ("pebbles", "the pebbles"),
}
_PREPOSITIONS: dict[str, tuple[str, ...]] = {"night sky": ("in",), "clouds": ("in",)}


@dataclass(frozen=True)
class Caption:
    """A sentence and its claims about a scene.

    Attributes:
        text: the sentence.
        object: the object it claims, or None.
        background: the background it claims, or None.
        overlay: the overlay it claims, or None.
        distractor: whether it names a thing that the world never contains, so that it is false.
    """

    text: str
    object: str | None = None
    background: str | None = None
    overlay: str | None = None
    distractor: bool = False

    def is_true(self, spec: SceneSpec) -> bool:
        """Whether everything the caption claims is in the scene."""
        return (
            not self.distractor
            and self.object in (None, spec.object)
            and self.background in (None, spec.background)
            and (self.overlay is None or self.overlay in spec.overlays)
        )


def truth_matrix(specs: Sequence[SceneSpec], captions: Sequence[Caption]) -> NDArray[np.bool_]:
    """Which caption is true of which scene: bool (scenes, captions)."""
    rows = [[caption.is_true(spec) for caption in captions] for spec in specs]
    return np.array(rows, dtype=np.bool_).reshape(len(specs), len(captions))


def named(noun: str) -> str:
    """The noun with its indefinite article: ``an apple``, ``a boat``."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def single_captions(rng: np.random.Generator) -> list[Caption]:
    """Every object, background and overlay of the world once, each alone in a random template."""
    backgrounds = [(b, _pick(rng, BACKGROUND_PHRASES[b])) for b in BACKGROUNDS]
    return (
        [Caption(_templated(rng, named(o)), object=o) for o in OBJECTS]
        + [Caption(_templated(rng, phrase), background=b) for b, phrase in backgrounds]
        + [Caption(_templated(rng, named(v)), overlay=v) for v in OVERLAYS]
    )


def pair_caption(rng: np.random.Generator, spec: SceneSpec | None = None) -> Caption:
    """A caption that names two things, of a scene if ``spec`` is given."""
    background = spec.background if spec else _pick(rng, BACKGROUNDS)
    name = spec.object if spec else _pick(rng, OBJECTS)
    overlays = spec.overlays if spec else OVERLAYS
    overlay = _pick(rng, overlays) if overlays and rng.random() < 0.6 else None
    background_phrase = _pick(rng, BACKGROUND_PHRASES[background])
    if overlay is None and name is None:
        return Caption(_templated(rng, background_phrase), background=background)
    if overlay is None and name is not None:
        preposition = _pick(rng, _PREPOSITIONS.get(background, ("on",)))
        text = _templated(rng, f"{named(name)} {preposition} {background_phrase}")
        return Caption(text, object=name, background=background)
    assert overlay is not None
    if name is None or rng.random() < 0.25:
        text = _templated(rng, f"{background_phrase} with {named(overlay)}")
        return Caption(text, background=background, overlay=overlay)
    return Caption(
        _templated(rng, f"{named(name)} with {named(overlay)}"), object=name, overlay=overlay
    )


def distractor_caption(rng: np.random.Generator) -> Caption:
    """A caption about something that no scene contains."""
    return Caption(_templated(rng, named(_pick(rng, DISTRACTORS))), distractor=True)


def sample_captions(
    rng: np.random.Generator, specs: Sequence[SceneSpec], pairs: int = 16, distractors: int = 12
) -> list[Caption]:
    """The captions of one training batch.

    All single concepts (36), ``pairs`` captions of two concepts of which half are true of some
    scene of the batch, ``distractors`` false ones, and one baseline that is true of everything.
    """
    chosen = [specs[int(i)] for i in rng.integers(0, len(specs), pairs // 2)]
    return [
        *single_captions(rng),
        *(pair_caption(rng, spec) for spec in chosen),
        *(pair_caption(rng) for _ in range(pairs - len(chosen))),
        *(distractor_caption(rng) for _ in range(distractors)),
        Caption(_pick(rng, BASELINES)),
    ]


def _templated(rng: np.random.Generator, phrase: str) -> str:
    return _pick(rng, TEMPLATES).format(phrase)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]
