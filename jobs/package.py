"""The folder that a job takes to a cluster: this package, the run's settings, and variables.

It is the job's ``working_dir``: driver and workers start in it, so that they import this package
and not another folder that is called ``pipeline``.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import requires
from importlib.resources import files
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import yaml

from legrad import __version__
from pipeline.cluster.job_variables import VARIABLES
from pipeline.config import RunConfig
from pipeline.errors import UsageError

MOST_BYTES = 100 * 2**20
"""Largest package that Ray's dashboard accepts."""
CONFIG = "run.yaml"
PACKAGES = ("legrad", "pipeline", "jobs")
_SECRET = re.compile(r"key|secret|token|password|credential|connection_string", re.IGNORECASE)
_NO_SECRETS = ("anon", "cloud", "google_default", "cache", "browser")


def settings_text(config: RunConfig) -> str:
    """A run's settings as YAML, without defaults and with absolute paths.

    Raises:
        UsageError: they contain credentials, which everybody on the cluster could read.
    """
    data = config.model_dump(mode="json", exclude_defaults=True)
    secrets = [*_secrets(config.source.options, "source.options")]
    secrets += _secrets(config.output_options, "output_options")
    uris = (*config.source.uris, config.output, config.model.weights_file or "")
    secrets += ["a URI with a password" for uri in uris if urlsplit(uri).password]
    if secrets:
        raise UsageError(
            f"{', '.join(secrets)}: credentials are not sent with the settings. Leave them "
            "out and give the nodes a role, or pass variables by name: --env AWS_ACCESS_KEY_ID "
            "--env AWS_SECRET_ACCESS_KEY"
        )
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _secrets(options: dict[str, Any], key: str) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _secrets(value, f"{key}.{name}")
        elif _SECRET.search(name) and value is not None and value not in _NO_SECRETS:
            yield f"{key}.{name}"


def digest(text: str) -> str:
    """A digest that tells the settings of one attempt from those of another."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def variables(names: Sequence[str]) -> dict[str, str]:
    """The values of environment variables.

    Args:
        names: names of the variables.

    Raises:
        UsageError: a variable is not set, or a name is ``NAME=VALUE``, which the shell's history
            would keep.
    """
    for name in names:
        if "=" in name:
            raise UsageError(
                f"--env {name.partition('=')[0]}: give the name alone; its value here is passed on"
            )
        if name not in os.environ:
            raise UsageError(f"--env {name}: this variable is not set here")
    return {name: os.environ[name] for name in names}


@contextmanager
def packaged(settings: str | None, values: dict[str, str], *, ship: bool) -> Iterator[Path]:
    """The folder that a job takes with it; it is deleted when the block ends.

    Args:
        settings: settings of the run as YAML.
        values: environment variables for driver and workers.
        ship: whether this package is included; otherwise the cluster's own is used.

    Raises:
        UsageError: the folder is larger than Ray accepts.
    """
    with TemporaryDirectory(prefix="legrad-") as temporary:
        folder = Path(temporary)
        if settings is not None:
            (folder / CONFIG).write_text(settings, encoding="utf-8")
        if values:
            (folder / VARIABLES).write_text(json.dumps(values), encoding="utf-8")
        if ship:
            _copy_package(folder)
        size = sum(path.stat().st_size for path in folder.rglob("*"))
        if size > MOST_BYTES:
            raise UsageError(
                f"the package has {size / 2**20:.0f} MiB, Ray's dashboard accepts "
                f"{MOST_BYTES // 2**20}. Install legrad-audit in the cluster's image and submit "
                "with --installed"
            )
        yield folder


def _copy_package(folder: Path) -> None:
    """Copy the content of a wheel: packages, configurations, and the version's metadata."""
    for name in PACKAGES:
        ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(Path(str(files(name))), folder / name, ignore=ignore)
    configs = Path(str(files("pipeline"))).parent / "configs"
    if not (folder / "pipeline" / "configs").exists():
        shutil.copytree(configs, folder / "pipeline" / "configs")
    metadata = folder / f"legrad_audit-{__version__}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: legrad-audit\nVersion: {__version__}\n"
    )


def dependencies() -> list[str]:
    """This package's dependencies as ``pip`` takes them, without Ray, which the cluster has."""
    requirements = requires("legrad-audit") or []
    return [text for text in requirements if "extra ==" not in text and not text.startswith("ray")]
