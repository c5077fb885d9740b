"""The model's files, as every node finds them: there, and the same everywhere."""

import hashlib
import os
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from legrad.models import catalog
from pipeline.cluster.finding import Finding
from pipeline.config import ModelConfig
from pipeline.errors import UsageError
from pipeline.storage.location import Location, open_location, redact

_SECONDS = 15.0
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
EMBEDDED = "embedded in the package"


@dataclass(frozen=True)
class ModelAnswer:
    """What a node says of the weights.

    Attributes:
        found: what they are: a digest, or what the store says of the file.
        problem: why they cannot be had there; None where they can.
    """

    found: str = ""
    problem: str | None = None


def ask_for_model(model: ModelConfig) -> ModelAnswer:
    """Look for the weights without loading them, or anything that is large."""
    if model.name == catalog.MINI:
        return ModelAnswer(EMBEDDED)
    try:
        if model.weights_file is not None:
            return ModelAnswer(_file(open_location(model.weights_file)))
        return ModelAnswer(_tag(model.name, model.pretrained or ""))
    except Exception as error:  # noqa: BLE001 - clients of hubs raise anything; it is told
        return ModelAnswer(problem=redact(f"{type(error).__name__}: {error}".splitlines()[0]))


def _file(place: Location) -> str:
    """The digest of a node's own file; of one in a store what identifies it there."""
    if place.is_local:
        with Path(place.path).open("rb") as file:
            return f"sha256 {hashlib.file_digest(file, 'sha256').hexdigest()[:16]}"
    if not place.exists():
        raise UsageError("no such file")
    told = place.fs.info(place.path)
    mark = told.get("ETag") or told.get("etag") or told.get("md5Hash") or ""
    return f"{told.get('size')} bytes {str(mark).strip(chr(34))}".strip()


def _tag(name: str, tag: str) -> str:
    """Published weights: in this node's cache, or to be had from their hub."""
    import open_clip

    told = open_clip.get_pretrained_cfg(name, tag)
    if told.get("hf_hub"):
        return _hub(told["hf_hub"])
    url = str(told["url"])
    if (Path.home() / ".cache" / "clip" / os.path.basename(url)).is_file():  # noqa: PTH119 - a URL
        return url
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - open_clip's own https
    with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
        return url


def _hub(place: str) -> str:
    import huggingface_hub as hub

    repository, _, name = place.rpartition("/")
    names = (name,) if name else _HUB_FILES
    for file in names:
        cached = hub.try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return f"{repository}/{file}"
    hub.get_hf_file_metadata(hub.hf_hub_url(repository, names[-1]), timeout=_SECONDS)
    return repository


def model_findings(
    model: ModelConfig, answers: Sequence[tuple[str, ModelAnswer]]
) -> Iterator[Finding]:
    """Say which nodes lack the weights, or hold others than the rest.

    Args:
        model: of the run.
        answers: of every node, with its name.
    """
    what = redact(f"{model.name} {model.pretrained or ''}".strip())
    lacking = [(node, answer.problem) for node, answer in answers if answer.problem]
    if lacking:
        node, problem = lacking[0]
        more = f" and {len(lacking) - 1} more nodes" if len(lacking) > 1 else ""
        yield Finding(
            "model",
            False,
            f"{what}: cannot be had on {node}{more}: {problem}. Put the weights where every node "
            "reads them (model.pretrained: s3://...), or into the image.",
        )
        return
    kinds = {answer.found for _, answer in answers}
    if model.weights_file is not None and len(kinds) > 1:
        told = ", ".join(f"{node}: {answer.found}" for node, answer in answers[:4])
        yield Finding(
            "model",
            False,
            f"{what}: the nodes hold different files ({told}). Copy one of them everywhere, or "
            "name one in a bucket.",
        )
        return
    yield Finding("model", True, f"{what}: {min(kinds)}")
