"""docs/reference/ is what docstrings, settings and commands say now."""

import textwrap

import pytest

from docs.generate import REFERENCE, items, markdown, pages


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_committed_pages_are_what_the_generator_gives(made: dict[str, str]) -> None:
    kept = {path.name: path.read_text("utf-8") for path in REFERENCE.glob("*.md")}
    assert set(kept) == set(made), "run `make docs`"
    for name, text in made.items():
        assert kept[name] == text, f"{name} is out of date: run `make docs`"


def test_every_key_has_a_meaning(made: dict[str, str]) -> None:
    for name in ("run-settings.md", "audit-settings.md"):
        rows = [line for line in made[name].splitlines() if line.startswith("| `")]
        assert len(rows) > 20
        assert [row for row in rows if row.endswith("|  |")] == []


def test_what_users_call_is_there(made: dict[str, str]) -> None:
    for name in ("load_model", "LeGrad.explain", "open_results", "Results.scores", "Audit.rank"):
        assert f"`{name}`" in made["api.md"]
    for command in ("run", "audit", "report", "export", "submit", "jobs list"):
        assert f"## `legrad {command}`" in made["commands.md"]


def test_sections_become_lists() -> None:
    doc = textwrap.dedent("""\
        Do it.

        Args:
            a, b: numbers,
                of one sign.

        Returns:
            A ``float``.
        """)
    text = markdown(doc)
    assert text == (
        "Do it.\n\n**Args**\n\n- `a, b`: numbers, of one sign.\n\n**Returns**\n\nA `float`."
    )
    assert items("a, b: numbers,\n    of one sign.") == {
        "a": "numbers, of one sign.",
        "b": "numbers, of one sign.",
    }
