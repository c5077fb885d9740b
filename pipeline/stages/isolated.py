"""The second pass: images that killed a worker, decoded and explained in a process that may die."""

import hashlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import RunError
from pipeline.progress.progress import Reporter
from pipeline.schema import Status

if TYPE_CHECKING:
    from pipeline.stages.decode import Decoder
    from pipeline.stages.explain import ReplicaSettings

LOAD_SECONDS = 900.0
_SERVE = "import sys; from pipeline.stages.isolated import serve; serve(int(sys.argv[1]))"
_ALIVE, _RESULT, _ERROR = b".", b"+", b"!"


@dataclass(frozen=True)
class Assignment:
    """What a sacrificial process does with a batch; sent to it once.

    Attributes:
        decoder, settings, text_features, schema, names: as the stages of the first pass have them.
    """

    decoder: "Decoder"
    settings: "ReplicaSettings"
    text_features: NDArray[np.float32]
    schema: pa.Schema
    names: Sequence[str]

    def packed(self) -> bytes:
        """Pickled, so that the actor that hands it on need not import torch."""
        return pickle.dumps(self)


class ChildDiedError(Exception):
    """The process died, or had to be ended: why."""


class Sacrifice:
    """Decode and explain in one stage, an actor of Ray Data that outlives every image.

    A batch goes to its process as a whole. If the process dies of it, a new one gets the images one
    by one, and the one that it dies of again becomes a row that says so.

    Args:
        work: `Assignment.packed`.
        schema: the output's.
        seconds: an image may take.
        keep_captions: whether captions are stored.
        reporter: told of every batch.
    """

    def __init__(
        self,
        work: bytes,
        schema: pa.Schema,
        seconds: float,
        keep_captions: bool,
        reporter: Reporter,
    ) -> None:
        self.work = work
        self.schema = schema
        self.seconds = seconds
        self.keep_captions = keep_captions
        self.reporter = reporter
        self.child: Child | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of `source_schema` -> as many rows of the output's schema."""
        with self.reporter.timed("sacrifice"):
            table = self._survive(batch)
        explained = pc.sum(pc.equal(table["status"], str(Status.OK))).as_py()
        maps = sum(name.startswith("score__") for name in table.column_names)
        self.reporter.batch(table, explained * maps)
        return table

    def _survive(self, batch: pa.Table) -> pa.Table:
        if self.child is None:
            self.child = Child(self.work)
        try:
            return self.child.ask(batch, self.seconds)
        except ChildDiedError as death:
            self.child = None
            if batch.num_rows == 1:
                return self._killer(batch, str(death))
        return pa.concat_tables([self._survive(batch.slice(i, 1)) for i in range(batch.num_rows)])

    def _killer(self, batch: pa.Table, death: str) -> pa.Table:
        """The row of an image that a process died of."""
        row = batch.to_pylist()[0]
        data = row.pop("bytes")
        row |= {
            "sha256": None if data is None else hashlib.sha256(data).hexdigest(),
            "caption": row["caption"] if self.keep_captions else None,
            "status": str(Status.WORKER_KILLED),
            "error": f"decoding or explaining this image ended its process: {death}",
        }
        return pa.Table.from_pylist([row], schema=self.schema)


class Child:
    """A process that decodes and explains what it is sent.

    Args:
        work: `Assignment.packed`.

    Raises:
        RunError: the process does not come up.
    """

    def __init__(self, work: bytes) -> None:
        self.pipe, theirs = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(  # noqa: S603 - ourselves
            [sys.executable, "-P", "-c", _SERVE, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        theirs.close()
        try:
            self._send(work)
            self._receive(LOAD_SECONDS)
        except ChildDiedError as death:
            raise RunError(f"the model cannot be loaded in a process of its own: {death}") from None

    def ask(self, batch: pa.Table, seconds: float) -> pa.Table:
        """Decode and explain a batch.

        Args:
            batch: rows of `source_schema`.
            seconds: each image may take.

        Raises:
            ChildDiedError: the process died of it, or took too long and was ended.
            RunError: the process raised an error, which is no image's fault.
        """
        self._send(_packed(batch))
        for _ in range(batch.num_rows):
            self._receive(seconds)
        return pa.ipc.open_stream(self._receive(seconds * batch.num_rows)).read_all()

    def _send(self, data: bytes) -> None:
        try:
            self.pipe.send_bytes(data)
        except OSError:
            raise self._death() from None

    def _receive(self, seconds: float) -> bytes:
        try:
            if not self.pipe.poll(seconds):
                self.process.kill()
                self.process.wait()
                raise ChildDiedError(f"no answer within {seconds:g} s")
            data = self.pipe.recv_bytes()
        except (EOFError, OSError):
            raise self._death() from None
        kind, content = data[:1], data[1:]
        if kind == _ERROR:
            raise RunError(content.decode())
        return content

    def _death(self) -> ChildDiedError:
        code = self.process.wait()
        return ChildDiedError(signal.Signals(-code).name if code < 0 else f"exit code {code}")


def serve(descriptor: int) -> None:
    """The life of a sacrificial process: load the model, then answer until the pipe is closed."""
    with Connection(descriptor) as pipe:
        work: Assignment = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from our own parent
        try:
            _answer(pipe, work)
        except EOFError:
            return
        except Exception as error:
            pipe.send_bytes(_ERROR + f"{type(error).__name__}: {error}".encode())
            raise


def _answer(pipe: Connection, work: Assignment) -> None:
    from pipeline.stages.explain import Explainer

    explain = Explainer(work.settings, work.text_features, work.schema, work.names, Reporter())
    pipe.send_bytes(_ALIVE)
    while True:
        batch = pa.ipc.open_stream(pipe.recv_bytes()).read_all()
        decoded = []
        for number in range(batch.num_rows):
            decoded.append(work.decoder(batch.slice(number, 1)))
            pipe.send_bytes(_ALIVE)
        pipe.send_bytes(_RESULT + _packed(explain(pa.concat_tables(decoded))))


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
