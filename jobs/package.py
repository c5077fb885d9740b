"""What travels to a cluster: this package, the run's settings, and variables of the environment.

All of it is one folder, Ray's ``working_dir`` of the job. Driver and workers start in it, so that
they import this package and not a folder that happens to be called ``pipeline`` elsewhere.
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
"""Of a package that goes through Ray's dashboard."""
CONFIG = "run.yaml"
PACKAGES = ("legrad", "pipeline", "jobs")
_SECRET = re.compile(r"key|secret|token|password|credential|connection_string", re.IGNORECASE)
_NO_SECRETS = ("anon", "cloud", "google_default", "cache", "browser")


def settings_text(config: RunConfig) -> str:
    """A run's settings as YAML, without defaults; every path in them is absolute.

    Raises:
        UsageError: they hold credentials, which would lie about on the cluster.
    """
    data = config.model_dump(mode="json", exclude_defaults=True)
    secrets = [*_secrets(config.source.options, "source.options")]
    secrets += _secrets(config.output_options, "output_options")
    uris = (*config.source.uris, config.output, config.model.weights_file or "")
    secrets += ["a URI with a password" for uri in uris if urlsplit(uri).password]
    if secrets:
        raise UsageError(
            f"{', '.join(secrets)}: credentials do not travel in settings. Leave them out, and "
            "give the nodes a role, or pass variables by name: --env AWS_ACCESS_KEY_ID --env "
            "AWS_SECRET_ACCESS_KEY"
        )
    return yaml.safe_dump(data, sort_keys=False, allow_unicode=True)


def _secrets(options: dict[str, Any], where: str) -> Iterator[str]:
    for name, value in options.items():
        if isinstance(value, dict):
            yield from _secrets(value, f"{where}.{name}")
        elif _SECRET.search(name) and value is not None and value not in _NO_SECRETS:
            yield f"{where}.{name}"


def digest(text: str) -> str:
    """Tells the settings of one attempt from those of another."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def variables(names: Sequence[str]) -> dict[str, str]:
    """Values of variables of this environment.

    Raises:
        UsageError: a name is not set here, or is a ``NAME=VALUE``, which would show in the shell's
            history.
    """
    for name in names:
        if "=" in name:
            raise UsageError(
                f"--env {name.partition('=')[0]}: give the name alone, its value is taken from here"
            )
        if name not in os.environ:
            raise UsageError(f"--env {name}: not set here")
    return {name: os.environ[name] for name in names}


@contextmanager
def packaged(settings: str | None, values: dict[str, str], *, ship: bool) -> Iterator[Path]:
    """The folder, until the block ends.

    Args:
        settings: of the run, as YAML.
        values: variables for driver and workers.
        ship: whether this package goes along; else the cluster's own is used.

    Raises:
        UsageError: it is larger than what Ray takes.
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
                f"the package takes {size / 2**20:.0f} MiB, Ray's dashboard at most "
                f"{MOST_BYTES // 2**20}. Install legrad-audit in the cluster's image and submit "
                "with --installed"
            )
        yield folder


def _copy_package(folder: Path) -> None:
    """As a wheel would install it: packages, configurations, version of the distribution."""
    for name in PACKAGES:
        leave = shutil.ignore_patterns("__pycache__", "*.pyc")
        shutil.copytree(Path(str(files(name))), folder / name, ignore=leave)
    configs = Path(str(files("pipeline"))).parent / "configs"
    if not (folder / "pipeline" / "configs").exists():
        shutil.copytree(configs, folder / "pipeline" / "configs")
    told = folder / f"legrad_audit-{__version__}.dist-info"
    told.mkdir()
    (told / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: legrad-audit\nVersion: {__version__}\n"
    )


def dependencies() -> list[str]:
    """What this package needs, for ``pip``; without Ray, which the cluster has."""
    every = requires("legrad-audit") or []
    return [text for text in every if "extra ==" not in text and not text.startswith("ray")]
