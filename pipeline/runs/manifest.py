"""A run's folder and identity: what must not change between two attempts, and what came out."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

from legrad.queries.query import Query
from pipeline.config import RunConfig, SourceConfig
from pipeline.errors import UsageError
from pipeline.runs.model_facts import Prepared
from pipeline.schema import SCHEMA_VERSION
from pipeline.sources.choice import wanted_ids
from pipeline.sources.labels import label_table
from pipeline.storage.location import Location, Options, open_location, redact

Uris = Sequence[str] | Mapping[str, Sequence[str]]
SOFTWARE = ("legrad-audit", "torch", "open_clip_torch", "ray", "pyarrow", "pillow")


@dataclass(frozen=True)
class RunFolder:
    """The output of a run: ``images/`` holds Parquet and nothing else, ``_run/`` the rest."""

    root: Location
    uri: str

    @cached_property
    def images(self) -> Location:
        """Folder of the Parquet parts."""
        return self.root.child("images")

    @cached_property
    def manifest(self) -> Location:
        """What the run is."""
        return self.root.child("_run", "manifest.json")

    @cached_property
    def checkpoint(self) -> Location:
        """Ids of the committed rows as earlier versions kept them; later ones have none."""
        return self.root.child("_run", "checkpoint")

    @cached_property
    def input(self) -> Location:
        """Read units and their shards, as the last attempt listed them."""
        return self.root.child("_run", "input.parquet")

    @cached_property
    def index(self) -> Location:
        """What the parts say of themselves, gathered in one file; made again where it is lost."""
        return self.root.child("_run", "index.parquet")

    @cached_property
    def ends(self) -> Location:
        """Ends of read units that no part records; found again where they are lost."""
        return self.root.child("_run", "ends.jsonl")

    @cached_property
    def log(self) -> Location:
        """What every attempt did, a file of JSON lines each."""
        return self.root.child("_run", "log")

    @cached_property
    def lease(self) -> Location:
        """Who is writing."""
        return self.root.child("_run", "lease.json")

    @cached_property
    def compacting(self) -> Location:
        """Marks a folder that a run is being compacted into; what is there is not whole yet."""
        return self.root.child("_run", "compacting.json")

    @cached_property
    def complete(self) -> Location:
        """Written last, when the counts add up."""
        return self.root.child("_run", "complete.json")


def run_folder(uri: str, options: Options | None = None) -> RunFolder:
    """The folder of a run, which need not exist."""
    return RunFolder(open_location(uri, options), uri)


def identity(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """Everything that changes results, flat; two attempts of one run agree in all of it.

    An alias names the data set, so that its location may change; without one the location counts.
    """
    model, source = config.model, config.source
    return {
        "schema_version": SCHEMA_VERSION,
        "model.name": model.name,
        "model.pretrained": None if model.weights_file else model.pretrained,  # the digest decides
        "model.weights_sha256": prepared.digest,
        "model.tokenizer": prepared.tokenizer,
        "model.image_size": list(prepared.preprocess.size),
        "model.resize": model.resize,
        "model.layers": prepared.layers,
        "model.precision": model.precision,
        "source.format": source.format,
        "source": source.alias or _places(source.uri),
        "source.image_field": source.image_field,
        "source.label_field": source.label_field,
        "source.caption_field": source.caption_field,
        "source.carry": dict(source.carry),
        "source.key_field": source.key_field,
        "source.label_names": source.label_names and list(source.label_names),
        "source.labels": _labels(source),
        **_only(source),
        "source.shards": source.shards,
        "source.sample": source.sample and [source.sample, source.sample_seed],
        "source.limit": source.limit,
        "source.max_pixels": source.max_pixels,
        "store.embeddings": config.store.embeddings,
        "store.captions": config.store.captions,
        "store.properties": config.store.properties,
        "store.maps": config.store.maps.model_dump(mode="json"),
        **{f"query.{query.name}": _query(query, prepared) for query in config.queries},
    }


def _query(query: Query, prepared: Prepared) -> dict[str, Any]:
    """Files are what they hold, not where they lie."""
    digest_ = prepared.query_digests.get(query.name)
    own = query.model_dump(mode="json", exclude={"images", "vector"} if digest_ else None)
    return own | ({"sha256": digest_} if digest_ else {})


def _places(uri: Uris) -> list[str]:
    """Names stand for places, where they have any: then these may change."""
    return sorted(uri) if isinstance(uri, Mapping) else [redact(place) for place in uri]


def _redacted(uri: Uris) -> dict[str, list[str]] | list[str]:
    """Places without credentials."""
    if isinstance(uri, Mapping):
        return {alias: [redact(place) for place in places] for alias, places in uri.items()}
    return [redact(place) for place in uri]


def _only(source: SourceConfig) -> dict[str, str]:
    """Nothing where all images are meant, so that runs of before this setting keep their digest."""
    some = wanted_ids(source)
    return {} if some is None else {"source.only": some.digest}


def _labels(source: SourceConfig) -> dict[str, str] | None:
    """A table of labels is what it says, not where it lies."""
    table = label_table(source)
    if table is None or source.labels is None:
        return None
    return {"sha256": table.digest, "key": source.labels.key, "label": source.labels.label}


def digest(values: dict[str, Any]) -> str:
    """SHA-256 (hex) of an identity."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_metadata(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """What every part says of itself under the key ``legrad``."""
    own = identity(config, prepared)
    return {
        "schema_version": SCHEMA_VERSION,
        "config_digest": digest(own),
        "grid": list(prepared.grid),
        "model": {
            "name": config.model.name,
            "pretrained": redact(config.model.pretrained or "") or None,
            "weights_sha256": prepared.digest,
            "layers": prepared.layers,
            "precision": config.model.precision,
            "tokenizer": config.model.tokenizer,
            "logit": prepared.logit,  # scores are cosines; logit = scale * cosine + bias
        },
        "preprocess": {
            "size": list(prepared.preprocess.size),
            "mode": prepared.preprocess.mode,
            "interpolation": prepared.preprocess.interpolation,
            "fill": list(prepared.preprocess.fill),
            "grid_in_original_pixels": prepared.preprocess.transform(),
        },
        "maps": config.store.maps.model_dump(mode="json"),
        "queries": [_told(query) for query in config.queries],
        "software": {name: version(name) for name in SOFTWARE},
    }


def _told(query: Query) -> dict[str, Any]:
    """A query without what the URIs of its files may give away."""
    values = query.model_dump(mode="json")
    if values.get("images"):
        values["images"] = [redact(uri) for uri in values["images"]]
    if values.get("vector"):
        values["vector"] = redact(values["vector"])
    return values


def claim(folder: RunFolder, config: RunConfig, prepared: Prepared) -> None:
    """Make the folder this run's, or find that it already is.

    Raises:
        UsageError: it holds another run (the differing keys are named), or a foreign one's files.
    """
    own = json.loads(json.dumps(identity(config, prepared)))
    if folder.manifest.exists():
        _refuse_other(folder, read_manifest(folder)["identity"], own)
        return
    if folder.images.files():
        raise UsageError(
            f"{folder.uri}: images/ holds files but _run/manifest.json is missing; choose another "
            "output"
        )
    source = config.source
    manifest = {
        "identity": own,
        "digest": digest(own),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {
            "uri": _redacted(source.uri),
            "format": source.format,
            "alias": source.alias,
            "image_field": source.image_field,
        },
        "metadata": file_metadata(config, prepared),
    }
    folder.manifest.write(json.dumps(manifest, indent=2).encode())


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        UsageError: there is none, it is broken, or a newer version wrote it.
    """
    if not folder.manifest.exists():
        raise UsageError(f"{folder.uri}: no run there (_run/manifest.json is missing)")
    try:
        manifest: dict[str, Any] = json.loads(folder.manifest.read())
        found = int(manifest["metadata"]["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder.uri}: _run/manifest.json is broken: {error!r}") from error
    if found > SCHEMA_VERSION:
        raise UsageError(
            f"{folder.uri}: written with schema version {found}, this legrad-audit reads up to "
            f"{SCHEMA_VERSION}; upgrade it"
        )
    return manifest


def _refuse_other(folder: RunFolder, theirs: dict[str, Any], own: dict[str, Any]) -> None:
    keys = [key for key in sorted(theirs | own) if theirs.get(key) != own.get(key)]
    if not keys:
        return
    lines = [f"  {key}: there {theirs.get(key)!r}, here {own.get(key)!r}" for key in keys[:12]]
    if len(keys) > 12:
        lines.append(f"  ... and {len(keys) - 12} more")
    raise UsageError(
        "\n".join(
            [
                f"{folder.uri} holds another run; mixing the two would spoil both. It differs in:",
                *lines,
                "Choose another place: --set output=NEW",
            ]
        )
    )
