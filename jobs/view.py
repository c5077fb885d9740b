"""``legrad view``: search, label and decide in a browser on this machine."""

import os
import sys
import webbrowser
from dataclasses import dataclass
from threading import Thread
from typing import Annotated

import typer

from jobs.options import AuditOptions, OutputsArgument, StorageOptions, VerdictsFile, grouped


@dataclass(frozen=True)
class FileOptions:
    """Where what people decide is stored."""

    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="CSV file that keeps answers. Default: a file inside OUT."
        ),
    ] = None
    verdicts: VerdictsFile = None
    waivers: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="CSV file that keeps waivers. Default: a file inside OUT."
        ),
    ] = None


@grouped
def view(
    out: OutputsArgument,
    options: AuditOptions,
    files: FileOptions,
    storage: StorageOptions,
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port. 0: any free one.")
    ] = 0,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Only look: record no answer and no verdict.")
    ] = False,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Whether to open the browser.")
    ] = True,
) -> None:
    """Look at findings, search images by any text, label a random sample, and decide.

    The pages are served on this machine only, at an address that works once. Ctrl-C ends it.
    """
    from jobs.display import console, log
    from pipeline.viewer.server import serve
    from pipeline.viewer.view import DecisionFiles, View

    _give_memory_back()
    opened = View(
        out,
        storage.options(),
        settings=options.config(),
        files=DecisionFiles(files.labels, files.verdicts, files.waivers),
        read_only=read_only,
        tell=log,
    )

    def ready(address: str) -> None:
        console.print(
            f"view: {address}\n      Ctrl-C ends it.", soft_wrap=True, markup=False, highlight=False
        )
        if browser:  # one in the terminal returns only when it is closed
            Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    try:
        serve(opened, port, ready)
    except KeyboardInterrupt:
        # Python would wait for threads that may compute for hours. Every file is written at once.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _give_memory_back() -> None:
    """Let Arrow return memory soon: its default allocator keeps what reading once took."""
    import pyarrow as pa

    if "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
