"""Queries for the next run, which people made from texts and from images that they chose."""

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from legrad.settings import absolute
from pipeline.discovery.words import plain_word
from pipeline.errors import UsageError
from pipeline.results import Results
from pipeline.starter.promotion import next_run, outputs, query_names
from pipeline.storage.location import Location

FILE = "next-run.yaml"
_HEAD = """\
# Made by `legrad view`: its cues are texts, and directions between images, that people chose there.
#   legrad run next-run.yaml
"""
_DEFINING = ("name", "prompts", "vector")


@dataclass(frozen=True)
class NextRun:
    """The queries that were made so far; they are stored with the run.

    Attributes:
        results: results of the run.
    """

    results: Results

    def read(self) -> list[dict[str, Any]]:
        """The queries: ``name``; ``prompts`` or ``vector``; ``who`` and ``when``.

        Raises:
            UsageError: the file is broken.
        """
        if not self._file.exists():
            return []
        try:
            queries = json.loads(self._file.read())
        except ValueError as error:
            raise UsageError(f"{self._file.path}: expected JSON: {error}") from error
        return list(queries)

    def waiting(self) -> list[dict[str, Any]]:
        """The queries that none of the open outputs has, as those of an earlier next run.

        Raises:
            UsageError: the file is broken.
        """
        known = {query.name for query in self.results.queries}
        return [query for query in self.read() if query["name"] not in known]

    def add(self, title: str, who: str, direction: NDArray[np.float32] | None = None) -> None:
        """Add a query: a text, or a direction (E,) between images, with a title.

        Raises:
            UsageError: the file cannot be read or written.
        """
        queries = self.read()
        taken = [query["name"] for query in queries]
        (name,) = query_names(self.results, [plain_word(title)], taken)
        made = {"prompts": title}
        if direction is not None:
            buffer = io.BytesIO()
            np.save(buffer, direction)
            self._folder.child(f"{name}.npy").write(buffer.getvalue())
            folder = absolute(self.results.folder.uri.rstrip("/"), Path.cwd())
            made = {"vector": f"{folder}/_run/next/{name}.npy"}
        when = datetime.now(UTC).isoformat(timespec="seconds")
        self._write([*queries, {"name": name, **made, "who": who, "when": when}])

    def remove(self, name: str) -> None:
        """Remove a query.

        Raises:
            UsageError: the file cannot be read or written.
        """
        self._write([query for query in self.read() if query["name"] != name])

    @property
    def outputs(self) -> tuple[str, str]:
        """The outputs that are open, as a command takes them, and that of the next run."""
        earlier, output = outputs(self.results, "next")
        return earlier, absolute(output, Path.cwd())

    def settings(self) -> str:
        """The settings of the next run, as YAML.

        Raises:
            UsageError: there is no query, or the run's model is unknown here.
        """
        cues = [{k: query[k] for k in _DEFINING if k in query} for query in self.waiting()]
        if not cues:
            raise UsageError(
                "no query for the next run yet: add a text or chosen images on the search page"
            )
        try:
            return f"{_HEAD}\n{next_run(self.results, cues, self.outputs[1])}"
        except ValueError as error:
            raise UsageError(f"the settings of the next run: {error}") from error

    @property
    def _folder(self) -> Location:
        return self.results.folder.root.child("_run", "next")

    @property
    def _file(self) -> Location:
        return self._folder.child("queries.json")

    def _write(self, queries: list[dict[str, Any]]) -> None:
        self._file.write(json.dumps(queries, indent=1, ensure_ascii=False).encode())
