"""What the server keeps: the audit, the index of images, the model, pictures and answers."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.audit.decisions import WaiverFile
from pipeline.audit.label_groups import LABELS, write_design
from pipeline.audit.vocabulary import nothing_stored
from pipeline.auditor import Audit
from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.labelling.tasks import LabelTask, draw_tasks
from pipeline.machine import IO_THREADS, user
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
_THREADS = {
    **dict.fromkeys(("audit", "findings", "index", "embeddings", "texts", "heat"), 1),
    "pictures": IO_THREADS,
}
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
            UsageError: there is no run, runs of different models are to be joined, or edits, which
                are stored in the output, are asked for while nothing is to be written.
        """
        if read_only and settings and settings.depth == "reliance" and not settings.reliance.work:
            raise UsageError(
                "--read-only: the depth reliance stores edited images in the output; leave it out, "
                "or name another folder for them with --set reliance.work=FOLDER"
            )
        self._uris = [uri] if isinstance(uri, str) else list(uri)
        self.uri = self._uris[0]
        self.read_only = read_only
        self.results = as_one(open_results(self._uris, storage_options))
        self.pictures = Pictures(self.results)
        self.texts = TextModel(self.results)
        self.label_file = LabelFile(*self._file(files.labels, LABELS))
        self.waiver_file = WaiverFile(*self._file(files.waivers, WAIVERS))
        self.doing = ""
        self._tell = tell
        self._audit_options = (storage_options, settings, files.verdicts)
        self._threads = Threads(_THREADS, background=["findings"])
        self.work = self._threads.work
        self._tasks: dict[tuple[Pair, int], list[LabelTask]] = {}
        self._again = False  # whether findings are asked for once more
        self._audits: tuple[Future[Audit], ...] = ()  # the whole one, a first look, an earlier one
        self.each_page = {
            "read_only": read_only,
            "live": True,
            "partial": False,
            "account": user(),
            "waiver_file": self.waiver_file.uri,
        }

    def start(self) -> None:
        """Begin to read the index and the findings, and to load the model."""
        begin = self._threads.submit
        self._index = begin("index", ImageIndex.read, self.results)
        model = begin("texts", _after, self._index, self.texts.load)
        # After the model: while it is loaded, its weights are in memory twice.
        self._embeddings = begin("embeddings", _after, model, Embeddings.read, self.results)
        self._compute_findings()
        self.reread()

    def refresh(self) -> None:
        """Compute the findings again, with all answers that there are now.

        Those of before stay until then. While findings are being computed, this waits for its turn,
        and asking more than once is the same as asking once.
        """
        if self.computing:
            self._again = True
        else:
            self._compute_findings()
            self.reread()

    def _compute_findings(self) -> None:
        """Begin to compute the findings.

        What needs only scores comes first, and is shown until all is there. The rest begins after
        the embeddings were read, so that people can search first.
        """
        begin = self._threads.submit
        before = [audit for audit in self._audits[:1] if audit.exception() is None]
        opened = begin("findings", _after, self._index, self._open_audit)
        first = begin("findings", lambda: opened.result().first_look())
        self._audits = (Future(), first, *before)
        if before:
            begin("findings", self.reread)
        whole = begin("findings", lambda: _after(self._embeddings, self._compute, opened.result()))
        self._audits = (whole, first, *before)
        begin("findings", self._conclude)

    def _conclude(self) -> None:
        """Show what was computed, and begin again if it was asked for meanwhile."""
        if self._again:
            self._again = False
            self._compute_findings()
        self.reread()

    def reread(self) -> None:
        """Read the verdicts again; nothing else is computed again."""
        self._overview = self._threads.submit("audit", self._read_overview)

    def close(self) -> None:
        """End the threads, without waiting for what they compute."""
        self._threads.close()

    async def audit(self) -> Audit:
        """The audit by scores, or the whole one once it is there; raises `NotReadyError` before."""
        return await ready(self._best)

    @property
    def each_findings_page(self) -> dict[str, Any]:
        """Names that every template of findings may use."""
        return self.each_page | {"partial": self.computing}

    @property
    def computing(self) -> bool:
        """Whether findings are being computed."""
        return not self._audits[0].done()

    @property
    def _best(self) -> "Future[Audit]":
        """The whole audit, or else a first look, or the one of before; a first look is awaited."""
        return next((audit for audit in self._audits if audit.done()), self._audits[1])

    async def overview(self) -> LivePages:
        """The findings of `audit`; raises `NotReadyError` while they are being computed."""
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

    def _open_audit(self) -> Audit:
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

    def _compute(self, audit: Audit) -> Audit:
        """The same audit, with all that pages show computed."""
        with nothing_stored() if self.read_only else nullcontext():
            if audit.settings.suspicions:
                self._report("encoding words")
                with suppress(UsageError):  # the audit says why there are no suspicions
                    self.texts.encode_words()
            self._report("reading maps")
            audit.rank()
        return audit

    def _report(self, text: str) -> None:
        self.doing = text
        self._tell(text)

    def _read_overview(self) -> LivePages:
        audit = self._best.result()
        verdicts = self._audit_options[2]
        command = ["legrad", "audit", *self._uris, *(["--verdicts", verdicts] if verdicts else [])]
        pages = read_overview(audit, self.pictures, self.each_findings_page, command)
        pa.default_memory_pool().release_unused()  # what maps took while they were read
        return pages


def _after(first: "Future[Any]", function: Callable[..., Result], *values: Any) -> Result:
    """Call a function once something else has been done, whether or not it succeeded."""
    wait([first])
    return function(*values)
