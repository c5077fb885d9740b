"""The report as a folder of pages that open from disk, without a network or a server."""

import shutil
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

from pipeline.auditor import Audit
from pipeline.errors import UsageError, counted
from pipeline.report import embed
from pipeline.report.contents import Limits, Report
from pipeline.report.gather import gather
from pipeline.report.pages import Pages
from pipeline.storage.location import local_path

MARK = "legrad-report.txt"
_FOLDERS = ("pairs", "classes", "pictures", "assets")


def build_report(
    audit: Audit,
    out: str | Path,
    limits: Limits | None = None,
    *,
    command: Sequence[str] | None = None,
    tell: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write a run's report.

    Args:
        audit: audit of the run.
        out: local folder; an older report in it is replaced once all is read for the new one.
        limits: limits of content and size.
        command: words of the command that audits the same results, for the pages; default
            ``legrad audit`` and the first output.
        tell: called with a message about each step.

    Returns:
        Path of the first page.

    Raises:
        UsageError: the folder holds files that are not a report, or is a URI.
    """
    folder = local_path(out)
    if folder.exists() and any(folder.iterdir()) and not (folder / MARK).exists():
        raise UsageError(
            f"{folder}: expected a new folder or an older report, found other files; choose "
            "another folder with -o"
        )
    tell("reading images and maps for the pages")
    report = gather(audit, limits or Limits(), command)
    classes = counted(len(report.classes), "class", "classes")
    tell(f"writing {counted(len(report.pairs), 'pair')} and {classes}")
    return write_report(report, folder)


def write_report(report: Report, folder: Path) -> Path:
    """Write the pages; those of an older report are deleted, and other files stay."""
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / MARK, "Made by legrad report; the next one into this folder replaces it.\n")
    for name in _FOLDERS:
        shutil.rmtree(folder / name, ignore_errors=True)
        (folder / name).mkdir()
    pages = Pages(report)
    for source in files("pipeline.report").joinpath("static").iterdir():
        (folder / "assets" / source.name).write_bytes(source.read_bytes())
    _write(folder / "assets" / "colours.js", embed.colours())
    _write(folder / "assets" / "table.js", pages.table_script())
    for image_id, path in pages.picture_files.items():
        (folder / path).write_bytes(report.pictures[image_id].data or b"")
    for number, name in enumerate(pages.pair_files.values()):
        _write(folder / "pairs" / f"{name}.html", pages.pair(number))
    for page in report.classes:
        name = pages.class_files[page.label]
        _write(folder / "classes" / f"{name}.html", pages.class_(page))
    _write(folder / "index.html", pages.index())
    return folder / "index.html"


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
