"""Repeat a run from its manifest and rows: its model, its pixels, and its scores and maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.dataset as ds
from numpy.typing import NDArray

from legrad.preprocess import Preprocess
from pipeline.config import AnyModelConfig, ClassifierConfig, ModelConfig, SourceConfig
from pipeline.config.loading import validated
from pipeline.config.model_settings import CLASSIFIER
from pipeline.errors import UsageError
from pipeline.machine import cores
from pipeline.results.results import Results
from pipeline.schema import FETCH_COLUMNS, Status
from pipeline.sources.fetch import Origin
from pipeline.stages.decode import Decoding, decode
from pipeline.storage.location import Options

MOST_STEPS = {"fp32": 1.0, "fp16": 2.0, "bf16": 6.0}
"""Allowed difference of maps, in steps of 1/255 of the map's maximum, by precision: two machines
may round a value to neighbouring steps, and at low precision to more distant ones."""
MOST_SCORE = {"fp32": 1e-4, "bf16": 2e-2, "fp16": 5e-3}
"""Allowed difference of scores (cosines), by precision."""
_SOURCE_FIELDS = (
    *("image_field", "key_field", "label_field", "label_columns", "label_separator", "label_names"),
    *("caption_field", "carry", "max_pixels", "decode"),
)
"""Settings of a source that are in the identity of a run."""
_BATCH = 16


@dataclass(frozen=True)
class Recomputed:
    """How far stored results differ from those computed again.

    Attributes:
        images: number of images that were explained again.
        map_steps: largest difference of maps, in steps of 1/255 of the stored map's maximum,
            beyond the half step of rounding.
        score: largest difference of scores.
        unreadable: image_id -> why it could not be fetched or decoded again.
        tolerance, most_steps: limits of ``score`` and ``map_steps`` at the run's precision.
    """

    images: int
    map_steps: float
    score: float
    unreadable: Mapping[str, str]
    tolerance: float
    most_steps: float

    @property
    def agree(self) -> bool:
        """Whether all differences are within the limits, and every image could be read."""
        close = self.map_steps <= self.most_steps and self.score <= self.tolerance
        return close and not self.unreadable


def recompute(results: Results, count: int, *, seed: int = 0, device: str = "cpu") -> Recomputed:
    """Fetch, decode and explain a random sample of the explained images again, and compare.

    Args:
        results: results of one run; its images must still be where they were.
        count: number of images.
        seed: seed of the random sample.
        device: torch device for the model.

    Raises:
        UsageError: the model's weights are not those of the run, or no image was explained.
    """
    import torch  # here, because it takes seconds and every audit imports this module

    from legrad.method.explainer import LeGrad
    from pipeline.stages.replica import ReplicaSettings, directions_of

    classes = tuple(q.label or "" for q in results.queries)
    about = model_config(results.run)
    is_classifier = isinstance(about, ClassifierConfig)
    settings = ReplicaSettings(
        about, device, cores(), _BATCH, classes=classes if is_classifier else None
    )
    model = settings.load()
    if model.digest != results.run["identity"]["model.weights_sha256"]:
        raise UsageError(
            f"{results.folder.uri}: {settings.model.name} has other weights here than in the run"
        )
    legrad = LeGrad(model, settings.model.layers)
    features = directions_of(model, results.queries)
    sample = _sample(results, count, seed)
    unreadable: dict[str, str] = {}
    steps, scores = [0.0], [0.0]
    for start in range(0, len(sample), _BATCH):
        batch = sample[start : start + _BATCH]
        rows, pixels = _readable(results, batch, model.preprocess, unreadable)
        if not rows:
            continue
        sizes = [(row["width"], row["height"]) for row in rows]
        batch_pixels = torch.from_numpy(np.stack(pixels))
        again = settings.explain(legrad, batch_pixels, features, sizes=sizes)
        ids = [row["image_id"] for row in rows]
        steps.append(_map_steps(results, ids, again.maps.float().cpu().numpy()))
        stored = results.scores().loc[ids].to_numpy()
        scores.append(float(np.abs(stored - again.scores.float().cpu().numpy()).max()))
    done = len(sample) - len(unreadable)
    allowed = (table[settings.model.precision] for table in (MOST_SCORE, MOST_STEPS))
    return Recomputed(done, max(steps), max(scores), unreadable, *allowed)


def _readable(
    results: Results,
    rows: Sequence[dict[str, Any]],
    preprocess: Preprocess,
    unreadable: dict[str, str],
) -> tuple[list[dict[str, Any]], list[NDArray[np.uint8]]]:
    """Rows whose pixels could be fetched, and the pixels; others are added to ``unreadable``."""
    decoding = Decoding.of_run(results.run["identity"])
    readable, pixels = [], []
    for row in rows:
        fetched = pixels_again(results.origin, row, preprocess, decoding)
        if isinstance(fetched, str):
            unreadable[row["image_id"]] = fetched
        else:
            readable.append(row)
            pixels.append(fetched)
    return readable, pixels


def _sample(results: Results, count: int, seed: int) -> list[dict[str, Any]]:
    ok = ds.field("status") == str(Status.OK)
    ids = results.dataset.to_table(columns=["image_id"], filter=ok)["image_id"].to_pylist()
    if not ids:
        raise UsageError(f"{results.folder.uri}: no image was explained, nothing to compare")
    chosen = np.random.default_rng(seed).choice(sorted(ids), min(count, len(ids)), replace=False)
    columns = ["image_id", "width", "height", *FETCH_COLUMNS]
    wanted = ds.field("image_id").isin(chosen.tolist())
    rows: list[dict[str, Any]] = results.dataset.to_table(columns, filter=wanted).to_pylist()
    return rows


def _map_steps(results: Results, ids: Sequence[str], maps: NDArray[np.float32]) -> float:
    """Largest difference in steps of the stored maps; maps that were not stored are left out."""
    largest = 0.0
    for column, query in enumerate(results.queries):
        _, stored = results.maps(query.name, ids)
        kept = ~np.isnan(stored).any(axis=(1, 2))
        old, new = stored[kept], maps[kept, column]
        peak = np.maximum(old.max(axis=(1, 2), initial=0.0), np.finfo(np.float32).tiny)
        difference = np.abs(old - new).max(axis=(1, 2), initial=0.0) / peak * 255 - 0.5
        largest = max(largest, float(difference.max(initial=0.0)))
    return largest


def model_config(manifest: Mapping[str, Any]) -> AnyModelConfig:
    """Settings of the model that a run used.

    Raises:
        UsageError: they do not hold here, as where the code of a classifier cannot be imported.
    """
    identity, about = manifest["identity"], manifest["metadata"]["model"]
    kept = {name: identity[f"model.{name}"] for name in ("image_size", "layers", "precision")}
    kept["name"] = about["name"]
    where = "the model of the run"
    if about.get("kind") == CLASSIFIER:
        kept |= {"kind": CLASSIFIER, "checkpoint": about["pretrained"], "classes": about["classes"]}
        return validated(ClassifierConfig, kept | {"resize": about["resize"]}, where)
    kept |= {"pretrained": about["pretrained"], "resize": identity["model.resize"]}
    # Neither is in early manifests.
    return validated(
        ModelConfig, kept | {name: about.get(name) for name in ("tokenizer", "tag")}, where
    )


def source_config(
    manifest: Mapping[str, Any], options: Options, only: str | None = None
) -> SourceConfig:
    """Settings of a run's source.

    A table of labels is left out: the labels are in the run's results. So is what has its default:
    a column that is named in the settings must exist.

    Args:
        manifest: manifest of the run.
        options: storage options, which a manifest does not hold.
        only: path of a table with the ids of the wanted images; default all images.
    """
    source, identity = manifest["source"], manifest["identity"]
    values = {name: identity.get(f"source.{name}") for name in _SOURCE_FIELDS}
    values |= {name: source.get(name) for name in ("uri", "alias", "image_root")}
    values |= {"only": only, "options": dict(options)}
    defaults = {name: field.default for name, field in SourceConfig.model_fields.items()}
    return SourceConfig(
        format=source["format"],
        **{n: value for n, value in values.items() if value not in (None, defaults[n])},
    )


def pixels_again(
    origin: Origin, row: Mapping[str, Any], preprocess: Preprocess, decoding: Decoding
) -> NDArray[np.uint8] | str:
    """Pixels (3, height, width) of the model's input, fetched and decoded, or the reason for none.

    Args:
        origin: where the images are.
        row: a row of the results, see `Origin.fetch`.
        preprocess: preprocessing of the model.
        decoding: how images are decoded.
    """
    try:
        data = origin.fetch(row)
    except UsageError as error:
        return str(error)
    decoded = decode(data, preprocess, decoding)
    if decoded.pixels is None:
        return f"{decoded.status}: {decoded.error}"
    height, width = preprocess.size
    return np.frombuffer(decoded.pixels, dtype=np.uint8).reshape(3, height, width)
