"""A run's folder and identity, the values that must not change between two attempts."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from typing import Any

from legrad.models.definition import is_name
from legrad.queries.query import Query
from pipeline.config import ClassifierConfig, RunConfig, SourceConfig
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
    """The output of a run: ``images/`` holds only Parquet files, ``_run/`` everything else."""

    root: Location
    uri: str

    @cached_property
    def images(self) -> Location:
        """Folder of the Parquet parts."""
        return self.root.child("images")

    @cached_property
    def manifest(self) -> Location:
        """Identity and metadata of the run."""
        return self.root.child("_run", "manifest.json")

    @cached_property
    def checkpoint(self) -> Location:
        """Ids of the committed rows, in the format of earlier versions; no longer written."""
        return self.root.child("_run", "checkpoint")

    @cached_property
    def input(self) -> Location:
        """Read units and their shards, as listed by the last attempt."""
        return self.root.child("_run", "input.parquet")

    @cached_property
    def index(self) -> Location:
        """The records of all parts in one file; rebuilt if lost."""
        return self.root.child("_run", "index.parquet")

    @cached_property
    def ends(self) -> Location:
        """Ends of read units that no part records; determined again if lost."""
        return self.root.child("_run", "ends.jsonl")

    @cached_property
    def log(self) -> Location:
        """Folder of the run logs, one file of JSON lines per attempt."""
        return self.root.child("_run", "log")

    @cached_property
    def lease(self) -> Location:
        """Lease of the driver that is writing."""
        return self.root.child("_run", "lease.json")

    @cached_property
    def compacting(self) -> Location:
        """Marks a folder that a run is being compacted into and that is not complete yet."""
        return self.root.child("_run", "compacting.json")

    @cached_property
    def complete(self) -> Location:
        """Completion marker, written last, once every row is committed."""
        return self.root.child("_run", "complete.json")


def run_folder(uri: str, options: Options | None = None) -> RunFolder:
    """The folder of a run, which need not exist."""
    return RunFolder(open_location(uri, options), uri)


def identity(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """All values that affect results, by flat keys; equal in all attempts of one run.

    An alias identifies the data set, so that its location may change; without an alias the
    location is part of the identity.
    """
    model, source = config.model, config.source
    return {
        "schema_version": SCHEMA_VERSION,
        # files and folders are identified by their digests alone, so that they may move
        "model.name": model.name if is_name(model.name) else None,
        **({"model.definition": prepared.definition} if prepared.definition else {}),
        "model.pretrained": None if model.weights_file else model.pretrained,
        "model.weights_sha256": prepared.digest,
        "model.tokenizer": prepared.tokenizer,
        **_identity_of_classifier(config, prepared),
        "model.image_size": list(prepared.preprocess.size),
        "model.resize": model.resize,
        "model.layers": prepared.layers,
        "model.precision": model.precision,
        "source.format": source.format,
        "source": source.alias or _location_identity(source.uri),
        "source.image_field": source.image_field,
        "source.label_field": source.label_field,
        "source.caption_field": source.caption_field,
        "source.carry": dict(source.carry),
        "source.key_field": source.key_field,
        "source.label_names": source.label_names and list(source.label_names),
        **_identity_of_sets(source),
        "source.labels": _identity_of_labels(source),
        **_identity_of_only(source),
        **_identity_of_image_root(source),
        "source.shards": source.shards,
        "source.sample": source.sample and [source.sample, source.sample_seed],
        "source.limit": source.limit,
        "source.max_pixels": source.max_pixels,
        **({"source.decode": "fast"} if source.decode == "fast" else {}),
        "store.embeddings": config.store.embeddings,
        "store.captions": config.store.captions,
        "store.properties": config.store.properties,
        "store.maps": config.store.maps.model_dump(mode="json"),
        **{f"query.{query.name}": _identity_of_query(query, prepared) for query in config.queries},
    }


def _identity_of_classifier(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """Empty for a vision-language model: its runs keep their digest."""
    resized = prepared.preprocess
    values = [resized.mode, resized.interpolation, resized.crop]
    is_classifier = isinstance(config.model, ClassifierConfig)
    return {"model.kind": "classifier", "model.preprocess": values} if is_classifier else {}


def _identity_of_query(query: Query, prepared: Prepared) -> dict[str, Any]:
    """A query made from files is identified by their contents, not their paths."""
    digest_ = prepared.query_digests.get(query.name)
    values = query.model_dump(mode="json", exclude={"images", "vector"} if digest_ else None)
    return values | ({"sha256": digest_} if digest_ else {})


def _location_identity(uri: Uris) -> list[str]:
    """The aliases of the locations if they have any, so that the locations may change.

    Otherwise the locations, without credentials.
    """
    return sorted(uri) if isinstance(uri, Mapping) else [redact(location) for location in uri]


def _redacted(uri: Uris) -> dict[str, list[str]] | list[str]:
    """The locations without credentials."""
    if isinstance(uri, Mapping):
        return {
            alias: [redact(location) for location in locations] for alias, locations in uri.items()
        }
    return [redact(location) for location in uri]


def _identity_of_only(source: SourceConfig) -> dict[str, str]:
    """Empty unless `source.only` is set: runs made before this setting keep their digest."""
    wanted = wanted_ids(source)
    return {} if wanted is None else {"source.only": wanted.digest}


def _identity_of_sets(source: SourceConfig) -> dict[str, Any]:
    """How labels are put together; empty unless set, for the digest of earlier runs."""
    values = {
        "source.label_columns": list(source.label_columns),
        "source.label_separator": source.label_separator,
    }
    return {name: value for name, value in values.items() if value}


def _identity_of_image_root(source: SourceConfig) -> dict[str, str]:
    """Empty unless `source.image_root` is set, and with an alias, as the data may then move."""
    root = source.image_root
    return {} if root is None or source.alias else {"source.image_root": redact(root)}


def _identity_of_labels(source: SourceConfig) -> dict[str, str] | None:
    """A label table is identified by its contents, not its location."""
    table = label_table(source)
    if table is None or source.labels is None:
        return None
    values = source.labels.model_dump(mode="json", exclude={"uri"}, exclude_defaults=True)
    return {"sha256": table.digest, "key": source.labels.key, "label": source.labels.label} | values


def digest(values: dict[str, Any]) -> str:
    """SHA-256 (hex) of an identity."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def file_metadata(config: RunConfig, prepared: Prepared) -> dict[str, Any]:
    """Metadata that every part carries under the key ``legrad``."""
    return {
        "schema_version": SCHEMA_VERSION,
        "config_digest": digest(identity(config, prepared)),
        "grid": list(prepared.grid),
        "model": {
            "name": redact(config.model.name),
            "pretrained": redact(config.model.pretrained or "") or None,
            "weights_sha256": prepared.digest,
            "layers": prepared.layers,
            "precision": config.model.precision,
            **config.model.about,
            "logit": prepared.logit,  # scores are cosines; logit = scale * cosine + bias
        },
        "preprocess": {
            "size": list(prepared.preprocess.size),
            "mode": prepared.preprocess.mode,
            "interpolation": prepared.preprocess.interpolation,
            "fill": list(prepared.preprocess.fill),
            "crop": prepared.preprocess.crop,
            "grid_in_original_pixels": prepared.preprocess.transform(),
        },
        "maps": config.store.maps.model_dump(mode="json"),
        "queries": [_redacted_query(query) for query in config.queries],
        "software": {name: version(name) for name in SOFTWARE},
    }


def _redacted_query(query: Query) -> dict[str, Any]:
    """A query with credentials removed from the URIs of its files."""
    values = query.model_dump(mode="json")
    if values.get("images"):
        values["images"] = [redact(uri) for uri in values["images"]]
    if values.get("vector"):
        values["vector"] = redact(values["vector"])
    return values


def claim_folder(folder: RunFolder, config: RunConfig, prepared: Prepared) -> None:
    """Claim the folder for this run, or confirm that it already belongs to it.

    A run that committed no row has no claim: it began with settings that the user mended.

    Raises:
        UsageError: the folder holds another run (the message names the differing keys), or files
            without a manifest.
    """
    identity_here = json.loads(json.dumps(identity(config, prepared)))
    if folder.manifest.exists():
        stored = read_manifest(folder)["identity"]
        if stored == identity_here:
            return
        if folder.images.files():
            raise _other_run(folder, stored, identity_here)
        for record in (folder.ends, folder.index, folder.input, folder.complete):
            record.delete()
    elif folder.images.files():
        raise UsageError(
            f"{folder.uri}: images/ holds files but _run/manifest.json is missing; choose another "
            "output"
        )
    source = config.source
    manifest = {
        "identity": identity_here,
        "digest": digest(identity_here),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "source": {
            "uri": _redacted(source.uri),
            "format": source.format,
            "alias": source.alias,
            "image_field": source.image_field,
            "image_root": redact(source.image_root) if source.image_root else None,
            "max_pixels": source.max_pixels,
        },
        "metadata": file_metadata(config, prepared),
    }
    folder.manifest.write(json.dumps(manifest, indent=2).encode())


def read_manifest(folder: RunFolder) -> dict[str, Any]:
    """The manifest of a run.

    Raises:
        UsageError: the manifest is missing, broken, or was written by a newer version.
    """
    if not folder.manifest.exists():
        raise UsageError(f"{folder.uri}: this folder holds no run (_run/manifest.json is missing)")
    try:
        manifest: dict[str, Any] = json.loads(folder.manifest.read())
        schema_version = int(manifest["metadata"]["schema_version"])
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{folder.uri}: _run/manifest.json is broken: {error!r}") from error
    if schema_version > SCHEMA_VERSION:
        raise UsageError(
            f"{folder.uri}: written with schema version {schema_version}, but this legrad-audit "
            f"reads only versions up to {SCHEMA_VERSION}; upgrade legrad-audit"
        )
    return manifest


def _other_run(
    folder: RunFolder, stored: dict[str, Any], identity_here: dict[str, Any]
) -> UsageError:
    """The error for a folder of another run; it names the values that differ."""
    keys = [
        key for key in sorted(stored | identity_here) if stored.get(key) != identity_here.get(key)
    ]
    lines = [
        f"  {key}: stored {stored.get(key)!r}, now {identity_here.get(key)!r}" for key in keys[:12]
    ]
    if len(keys) > 12:
        lines.append(f"  ... and {len(keys) - 12} more")
    return UsageError(
        "\n".join(
            [
                f"{folder.uri} holds another run, and two runs must not be mixed. They differ in:",
                *lines,
                "Choose another output: --set output=NEW",
            ]
        )
    )
