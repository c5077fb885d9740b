"""The site builds without a warning, needs nothing from the network, and covers what users call."""

import re
from html import unescape
from pathlib import Path

import pytest

from pipeline.config import AuditConfig, RunConfig

ROOT = Path(__file__).parents[2]
pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    return folder


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.glob("*.html"))
    assert len(pages) > 10
    for page in pages:
        text = page.read_text("utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]* rel="stylesheet"[^>]* href="([^"]+)"', text)
        assert not [uri for uri in loaded if uri.startswith(("http:", "https:", "//"))], page.name
    assert (site / "search" / "search_index.js").is_file()


def test_what_users_call_is_in_the_reference(site: Path) -> None:
    python = (site / "api.html").read_text("utf-8")
    for name in ("legrad.load_model", "LeGrad.explain", "Results.scores", "Audit.rank"):
        assert re.search(rf'id="[\w.]*{re.escape(name)}"', python), name
    commands = unescape((site / "commands.html").read_text("utf-8"))
    for command in ("run", "audit", "report", "export", "submit", "jobs list"):
        assert f"legrad {command}</code>" in commands


@pytest.mark.parametrize("model", [RunConfig, AuditConfig])
def test_every_setting_has_a_meaning(model: type) -> None:
    from docs.hooks import tables

    rows = [line for text in tables(model) for line in text.splitlines() if line.startswith("| `")]
    assert len(rows) > 20
    assert [row for row in rows if row.endswith("|  |")] == []
