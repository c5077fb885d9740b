"""The second pass: images that killed a worker, decoded and explained in a process that may die.

The process is started as a plain command and not by `multiprocessing` (nor by pebble, which builds
on it): inside a Ray worker that would load Ray's own worker script again as the main module. Its
time limit is per image although a batch is explained as a whole, so the process reports every image
that it has decoded.
"""

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
from numpy.typing import NDArray

from pipeline.errors import RunError
from pipeline.progress.progress import Reporter
from pipeline.schema import Status
from pipeline.stages.encode import count_maps

if TYPE_CHECKING:
    from pipeline.stages.decode import Decoder
    from pipeline.stages.replica import ReplicaSettings

LOAD_SECONDS = 900.0
_COMMAND = (
    "import sys; from pipeline.stages.isolated import answer_batches; "
    "answer_batches(int(sys.argv[1]))"
)
_ALIVE, _RESULT, _ERROR = b".", b"+", b"!"


@dataclass(frozen=True)
class IsolatedSettings:
    """What an isolated process needs to decode and explain; it is sent once, at the start.

    Attributes:
        decoder: the decode stage of the first pass.
        replica, text_features, schema, names: as for `pipeline.stages.explain.Explainer`.
    """

    decoder: "Decoder"
    replica: "ReplicaSettings"
    text_features: NDArray[np.float32]
    schema: pa.Schema
    names: Sequence[str]

    def packed(self) -> bytes:
        """Pickle them, so that the actor that passes them on need not import torch."""
        return pickle.dumps(self)


class ProcessDiedError(Exception):
    """The isolated process died or was ended at its time limit; the message says which."""


class IsolatedExplainer:
    """Decodes and explains in one stage, an actor of Ray Data that survives every image.

    The process gets a batch as a whole. If it dies, a new process gets the images one by one, and
    an image that ends that process as well becomes a row with status `Status.WORKER_KILLED`.

    Args:
        settings: from `IsolatedSettings.packed`.
        schema: schema of the output.
        seconds: time limit per image.
        keep_captions: whether captions are stored.
        reporter: receives the counts of every batch.
    """

    def __init__(
        self,
        settings: bytes,
        schema: pa.Schema,
        seconds: float,
        keep_captions: bool,
        reporter: Reporter,
    ) -> None:
        self.settings = settings
        self.schema = schema
        self.seconds = seconds
        self.keep_captions = keep_captions
        self.reporter = reporter
        self.process: IsolatedProcess | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Turn rows of `source_schema` into as many rows of the output's schema."""
        with self.reporter.timed("isolated"):
            table = self._survive(batch)
        self.reporter.batch(table, count_maps(table))
        return table

    def _survive(self, batch: pa.Table) -> pa.Table:
        if self.process is None:
            self.process = IsolatedProcess(self.settings)
        try:
            return self.process.explain(batch, self.seconds)
        except ProcessDiedError as death:
            self.process = None
            if batch.num_rows == 1:
                return self._killed_row(batch, str(death))
        return pa.concat_tables([self._survive(batch.slice(i, 1)) for i in range(batch.num_rows)])

    def _killed_row(self, batch: pa.Table, death: str) -> pa.Table:
        """The output row of an image that ended its process."""
        row = batch.to_pylist()[0]
        data = row.pop("bytes")
        row |= {
            "sha256": None if data is None else hashlib.sha256(data).hexdigest(),
            "caption": row["caption"] if self.keep_captions else None,
            "status": str(Status.WORKER_KILLED),
            "error": f"decoding or explaining this image ended its process: {death}",
        }
        return pa.Table.from_pylist([row], schema=self.schema)


class IsolatedProcess:
    """A process that decodes and explains the batches that it is sent.

    Args:
        settings: from `IsolatedSettings.packed`.

    Raises:
        RunError: the process cannot load its model.
    """

    def __init__(self, settings: bytes) -> None:
        self.pipe, far_end = Pipe()
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [sys.executable, "-P", "-c", _COMMAND, str(far_end.fileno())],
            pass_fds=[far_end.fileno()],
            env=environment,
            stdin=subprocess.DEVNULL,
        )
        far_end.close()
        try:
            self._send(settings)
            self._receive(LOAD_SECONDS)
        except ProcessDiedError as death:
            raise RunError(f"the model cannot be loaded in a process of its own: {death}") from None

    def explain(self, batch: pa.Table, seconds: float) -> pa.Table:
        """Decode and explain a batch.

        Args:
            batch: rows of `source_schema`.
            seconds: time limit per image.

        Raises:
            ProcessDiedError: the process died, or reached the time limit and was ended.
            RunError: the process raised an error, which is not the fault of an image.
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
                raise ProcessDiedError(f"no answer within {seconds:g} s")
            data = self.pipe.recv_bytes()
        except (EOFError, OSError):
            raise self._death() from None
        kind, content = data[:1], data[1:]
        if kind == _ERROR:
            raise RunError(content.decode())
        return content

    def _death(self) -> ProcessDiedError:
        code = self.process.wait()
        return ProcessDiedError(signal.Signals(-code).name if code < 0 else f"exit code {code}")


def answer_batches(descriptor: int) -> None:
    """Main function of an isolated process: load the model, answer until the pipe is closed.

    Args:
        descriptor: file descriptor of this end of the pipe.
    """
    with Connection(descriptor) as pipe:
        settings: IsolatedSettings = pickle.loads(pipe.recv_bytes())  # noqa: S301 - from the parent
        try:
            _answer(pipe, settings)
        except EOFError:
            return
        except Exception as error:
            pipe.send_bytes(_ERROR + f"{type(error).__name__}: {error}".encode())
            raise


def _answer(pipe: Connection, settings: IsolatedSettings) -> None:
    from pipeline.stages.explain import Explainer

    explain = Explainer(
        settings.replica, settings.text_features, settings.schema, settings.names, Reporter()
    )
    pipe.send_bytes(_ALIVE)
    while True:
        batch = pa.ipc.open_stream(pipe.recv_bytes()).read_all()
        decoded = []
        for number in range(batch.num_rows):
            decoded.append(settings.decoder(batch.slice(number, 1)))
            pipe.send_bytes(_ALIVE)
        pipe.send_bytes(_RESULT + _packed(explain(pa.concat_tables(decoded))))


def _packed(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
