"""Checks that every node can get the model's weights, and that all of them get the same ones."""

import hashlib
import posixpath
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from legrad.models.definition import HUB_PREFIX, MINI, define, is_name
from pipeline.cluster.nodes import Finding
from pipeline.config import AnyModelConfig, ClassifierConfig
from pipeline.errors import UsageError
from pipeline.storage.location import Location, open_location, redact

_SECONDS = 15.0
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
EMBEDDED = "embedded in the package"


@dataclass(frozen=True)
class ModelAnswer:
    """A node's answer about the weights.

    Attributes:
        identity: the file's digest, or its size and tag in a store, or its published address.
        problem: why the node cannot get them; None if it can.
    """

    identity: str = ""
    problem: str | None = None


def ask_for_model(model: AnyModelConfig) -> ModelAnswer:
    """Look for the weights on this node, without downloading or loading them."""
    if model.name == MINI:
        return ModelAnswer(EMBEDDED)
    try:
        return ModelAnswer(_identity(model))
    except Exception as error:  # noqa: BLE001 - clients of hubs raise anything; it is reported
        return ModelAnswer(problem=redact(f"{type(error).__name__}: {error}".splitlines()[0]))


def _is_published(model: AnyModelConfig) -> bool:
    """Whether the weights are those of an open_clip tag, and so the same wherever they are."""
    if isinstance(model, ClassifierConfig):
        return False
    return is_name(model.name) and not model.name.startswith(HUB_PREFIX) and not model.weights_file


def _identity(model: AnyModelConfig) -> str:
    if isinstance(model, ClassifierConfig):
        return _classifier_identity(model)
    definition = define(model.name)
    if _is_published(model):
        return _published_identity(model.name, model.pretrained or "")
    if model.weights_file is not None:
        weights = _file_identity(open_location(model.weights_file))
    elif definition.repository is not None:
        weights = _hub_identity(f"{definition.repository}/")
    else:
        files = [open_location(str(path)) for path in definition.weights_files()]
        weights = ", ".join(map(_file_identity, files))
    return weights if definition.built_in else f"{weights}, config {definition.digest[:16]}"


def _classifier_identity(model: ClassifierConfig) -> str:
    """That of the weights file or folder; code and timm's published weights are not looked at."""
    if model.weights_file is not None:
        return _file_identity(open_location(model.weights_file))
    if Path(model.name).is_dir():
        files = sorted(Path(model.name).glob("*.safetensors")) or sorted(
            Path(model.name).glob("*.bin")
        )
        return ", ".join(_file_identity(open_location(str(path))) for path in files)
    if posixpath.isabs(model.name):
        raise UsageError("no such folder")
    return model.name


def _file_identity(file: Location) -> str:
    """The digest of a local file; for a file in a store, its size and the store's tag."""
    if file.is_local:
        with Path(file.path).open("rb") as data:
            return f"sha256 {hashlib.file_digest(data, 'sha256').hexdigest()[:16]}"
    if not file.exists():
        raise UsageError("no such file")
    info = file.fs.info(file.path)
    tag = info.get("ETag") or info.get("etag") or info.get("md5Hash") or ""
    return f"{info.get('size')} bytes {str(tag).strip(chr(34))}".strip()


def _published_identity(name: str, tag: str) -> str:
    """Published weights, from this node's cache or from their hub."""
    import open_clip

    config = open_clip.get_pretrained_cfg(name, tag)
    if config.get("hf_hub"):
        return _hub_identity(config["hf_hub"])
    url = str(config["url"])
    if (Path.home() / ".cache" / "clip" / posixpath.basename(url)).is_file():
        return url
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - open_clip's own https
    with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
        return url


def _hub_identity(hub_name: str) -> str:
    """Name and content (the hub's etag) of a weights file, in this node's cache or on the hub."""
    import huggingface_hub as hub

    repository, _, name = hub_name.rpartition("/")
    names = (name,) if name else _HUB_FILES
    for file in names:
        cached = hub.try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return f"{repository}/{file} {Path(cached).resolve().name[:16]}"
    for file in names[:-1]:
        with suppress(hub.errors.EntryNotFoundError):
            return _on_hub(repository, file)
    return _on_hub(repository, names[-1])


def _on_hub(repository: str, file: str) -> str:
    import huggingface_hub as hub

    address = hub.hf_hub_url(repository, file)
    about = hub.get_hf_file_metadata(address, timeout=_SECONDS)
    return f"{repository}/{file} {(about.etag or '')[:16]}".strip()


def model_findings(
    model: AnyModelConfig, answers: Sequence[tuple[str, ModelAnswer]]
) -> Iterator[Finding]:
    """Report nodes that cannot get the weights, or whose weights differ.

    Args:
        model: the run's model.
        answers: the name and the answer of every node.
    """
    title = redact(f"{model.name} {model.pretrained or ''}".strip())
    lacking = [(node, answer.problem) for node, answer in answers if answer.problem]
    if lacking:
        node, problem = lacking[0]
        more = f" and {len(lacking) - 1} more nodes" if len(lacking) > 1 else ""
        yield Finding(
            "model",
            False,
            f"{title}: not available on {node}{more}: {problem}. Put the weights where every node "
            "reads them (model.pretrained: s3://...), or into the image.",
        )
        return
    identities = {answer.identity for _, answer in answers}
    if not _is_published(model) and len(identities) > 1:
        examples = ", ".join(f"{node}: {answer.identity}" for node, answer in answers[:4])
        yield Finding(
            "model",
            False,
            f"{title}: the nodes hold different files ({examples}). Copy one of them to all, or "
            "name one in a bucket.",
        )
        return
    yield Finding("model", True, f"{title}: {min(identities)}")
