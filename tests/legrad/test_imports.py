"""What importing loads. import-linter sees only our own imports, not those of libraries."""

import json
import os
import pkgutil
import subprocess
import sys

import pytest

import legrad

LIGHT = (
    "errors",
    "heatmaps.codec",
    "models.catalog",
    "preprocess",
    "queries.query",
    "queries.selection",
    "settings",
)


def modules_after(code: str) -> set[str]:
    """Top-level and full names of all modules loaded in a fresh interpreter."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.starts
def test_importing_the_package_is_light() -> None:
    loaded = modules_after("import legrad; dir(legrad); legrad.__version__")
    heavy = {"torch", "ray", "open_clip", "numpy", "PIL", "pydantic"}
    assert loaded.isdisjoint(heavy)
    assert modules_after("import jobs.cli").isdisjoint(heavy | {"fsspec", "rich.table"})


@pytest.mark.starts
def test_settings_are_checked_without_torch() -> None:
    names = ", ".join(f"legrad.{name}" for name in LIGHT)
    code = (
        f"import {names}\n"
        "assert legrad.models.catalog.architecture('ViT-B-32').layers == 12\n"
        "legrad.queries.query.Query(name='dog', role='class').texts()"
    )
    assert modules_after(code).isdisjoint({"torch", "ray", "open_clip", "torchvision"})


@pytest.mark.starts
def test_no_module_loads_ray() -> None:
    modules = [module.name for module in pkgutil.walk_packages(legrad.__path__, "legrad.")]
    assert {"legrad.method.explainer", "legrad.mini.loader", "legrad.towers.eva"} <= set(modules)
    loaded = modules_after(f"import {', '.join(modules)}")
    assert set(modules) <= loaded
    assert loaded.isdisjoint({"ray", "pipeline", "jobs"})


@pytest.mark.starts
def test_all_names_resolve() -> None:
    for name in legrad.__all__:
        assert getattr(legrad, name) is not None
    assert set(dir(legrad)) == set(legrad.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'legrad' has no attribute 'Legrad'"):
        legrad.Legrad  # noqa: B018


@pytest.mark.starts
def test_an_audit_of_stored_scores_needs_no_torch() -> None:
    code = "import pipeline.auditor, pipeline.discovery, pipeline.export, pipeline.report.site"
    assert modules_after(code).isdisjoint({"torch", "ray", "open_clip"})
