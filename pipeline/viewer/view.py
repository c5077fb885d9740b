"""What the server keeps: the audit, the index of images, the model, pictures and answers."""

from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import Any

from pipeline.audit.decisions import WaiverFile
from pipeline.audit.label_groups import write_design
from pipeline.auditor import Audit
from pipeline.config.audit_settings import AuditConfig
from pipeline.labelling.table import TABLE
from pipeline.labelling.tasks import LabelTask, draw_tasks
from pipeline.machine import IO_THREADS
from pipeline.results import open_results
from pipeline.results.joined_run import as_one
from pipeline.storage.location import Location, Options, open_location
from pipeline.viewer.embeddings import Embeddings
from pipeline.viewer.label_file import LabelFile
from pipeline.viewer.live_report import LivePages, bare_report, read_overview
from pipeline.viewer.pictures import Pictures
from pipeline.viewer.search import ImageIndex
from pipeline.viewer.texts import TextModel
from pipeline.viewer.threads import Result, Threads, ready

WAIVERS = "waivers.csv"
_THREADS = {"audit": 1, "index": 1, "embeddings": 1, "texts": 1, "heat": 1, "pictures": IO_THREADS}
"""Threads of each kind of work."""
Pair = tuple[str, str]


@dataclass(frozen=True)
class DecisionFiles:
    """Where what people decide is stored: paths or URIs of CSV files; None: inside the output.

    Attributes:
        labels: answers.
        verdicts: verdicts on pairs.
        waivers: findings that people accept for some time.
    """

    labels: str | None = None
    verdicts: str | None = None
    waivers: str | None = None


class View:
    """One output, or several over the same images, opened for people to look at.

    Attributes:
        uri: path or URI of the output; of several, the first one, which keeps answers and verdicts.
        read_only: whether nothing is written.
        results: results of the run.
        pictures: pictures of its images.
        texts: its model, which encodes texts.
        doing: current step of computing the findings, in words.
        work: calls a function in one of the threads, see `Threads.work`.
        label_file: people's answers.
        waiver_file: findings that people accept for some time.
    """

    def __init__(
        self,
        uri: str | Sequence[str],
        storage_options: Options | None = None,
        *,
        settings: AuditConfig | None = None,
        files: DecisionFiles = DecisionFiles(),
        read_only: bool = False,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Open an output; computing begins with `start`.

        Args:
            uri: output folder of the run, or a list of outputs that are joined as by an audit.
            storage_options: options of its storage.
            settings: settings of the audit.
            files: where what people decide is stored.
            read_only: whether nothing is written.
            tell: called with messages about long steps.

        Raises:
            UsageError: there is no run, or runs of different models are to be joined.
        """
        self._uris = [uri] if isinstance(uri, str) else list(uri)
        self.uri = self._uris[0]
        self.read_only = read_only
        self.results = as_one(open_results(self._uris, storage_options))
        self.pictures = Pictures(self.results)
        self.texts = TextModel(self.results)
        self.label_file = LabelFile(*self._file(files.labels, TABLE))
        self.waiver_file = WaiverFile(*self._file(files.waivers, WAIVERS))
        self.doing = ""
        self._tell = tell
        self._audit_options = (storage_options, settings, files.verdicts)
        self._threads = Threads(_THREADS)
        self.work = self._threads.work
        self._tasks: dict[tuple[Pair, int], list[LabelTask]] = {}
        self.each_page = {"read_only": read_only, "live": True}

    def start(self) -> None:
        """Begin to read the index and the findings, and to load the model."""
        begin = self._threads.submit
        self._index = begin("index", ImageIndex.read, self.results)
        self._embeddings = begin("embeddings", self._after_index, Embeddings.read, self.results)
        begin("texts", self._after_index, self.texts.load)
        self.refresh()

    def _after_index(self, function: Callable[..., Result], *values: Any) -> Result:
        """Call a function once the index is there: it is small, and the first pages need it."""
        wait([self._index])
        return function(*values)

    def refresh(self) -> None:
        """Compute the findings, with all answers that there are now."""
        self._audit = self._threads.submit("audit", self._after_index, self._read_audit)
        self.reread()

    def reread(self) -> None:
        """Read the verdicts again; nothing else is computed again."""
        self._overview = self._threads.submit("audit", self._read_overview)

    def close(self) -> None:
        """End the threads, without waiting for what they compute."""
        self._threads.close()

    async def audit(self) -> Audit:
        """The audit; raises `NotReadyError` while it is being opened."""
        return await ready(self._audit)

    async def overview(self) -> LivePages:
        """The findings; raises `NotReadyError` while they are being computed."""
        return await ready(self._overview)

    async def index(self) -> ImageIndex:
        """The index; raises `NotReadyError` while it is being read."""
        return await ready(self._index)

    async def embeddings(self) -> Embeddings:
        """The embeddings; raises `NotReadyError` while they are being read."""
        return await ready(self._embeddings)

    def bare_pages(self) -> LivePages:
        """Pages that need no findings."""
        pages = LivePages(bare_report(self.results))
        pages.env.globals |= self.each_page
        return pages

    def tasks(self, audit: Audit, pair: Pair) -> list[LabelTask]:
        """The images that were drawn for a pair; none if nothing was drawn."""
        design = self.label_file.design(audit)
        cls, cue = pair
        drawn = design.groups.get((cue, cls))
        if drawn is None:
            return []
        key = (pair, drawn.drawn)
        if key not in self._tasks:
            self._tasks[key] = draw_tasks(audit, [pair], drawn.drawn, design)[0]
        return self._tasks[key]

    def draw(self, audit: Audit, pair: Pair, labels: int) -> None:
        """Draw images for a pair, and store what was drawn with the run."""
        _, design = draw_tasks(audit, [pair], labels, self.label_file.design(audit))
        write_design(self.results.folder.root, design)

    def _file(self, uri: str | None, name: str) -> tuple[Location, str]:
        """A file that the user names, or the one inside the output."""
        if uri is not None:
            return open_location(uri), uri
        inside = self.results.folder.root.child("_run", name)
        return inside, f"{self.uri.rstrip('/')}/_run/{name}"

    def _read_audit(self) -> Audit:
        options, settings, verdicts = self._audit_options
        files = () if self.label_file.read().empty else (self.label_file.uri,)
        return Audit.from_results(
            self._uris,
            options,
            settings=settings,
            verdicts=verdicts,
            labels=files,
            tell=self._report,
        )

    def _report(self, text: str) -> None:
        self.doing = text
        self._tell(text)

    def _read_overview(self) -> LivePages:
        return read_overview(self._audit.result(), self.pictures, self.each_page)
