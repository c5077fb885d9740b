"""The second pass: images that killed a worker are decoded and explained in a separate process.

The time limit is per image although a batch is explained as a whole, so decoding each image is a
task of its own, and the process keeps the pixels until the batch is explained.
"""

import hashlib
import pickle
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pebble import ProcessExpired, ProcessPool

from pipeline.errors import RunError
from pipeline.progress.progress import Reporter
from pipeline.schema import Status
from pipeline.stages.encode import count_maps

if TYPE_CHECKING:  # these import torch, which only the isolated process needs
    from pipeline.stages.decode import Decoder
    from pipeline.stages.explain import Explainer
    from pipeline.stages.replica import ReplicaSettings

T = TypeVar("T")
LOAD_SECONDS = 900.0


@dataclass(frozen=True)
class IsolatedSettings:
    """Settings of an isolated process, which it receives once, at the start.

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
        """Pickle them, so that the actor, which only passes them on, need not import torch."""
        return pickle.dumps(self)


class ProcessDiedError(Exception):
    """The isolated process died, or was ended at its time limit; the message says which."""


class IsolatedExplainer:
    """Decodes and explains in one stage, an actor of Ray Data that no image can end.

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
        self.pool = ProcessPool(max_workers=1, context=get_context("spawn"))
        try:
            self._run(LOAD_SECONDS, _load, settings)
        except (ProcessDiedError, RunError) as error:
            self.stop()
            raise RunError(f"the model cannot be loaded in a process of its own: {error}") from None

    def explain(self, batch: pa.Table, seconds: float) -> pa.Table:
        """Decode and explain a batch.

        Args:
            batch: rows of `source_schema`.
            seconds: time limit per image.

        Raises:
            ProcessDiedError: the process died, or reached the time limit and was ended.
            RunError: the process raised an error, which is not the fault of an image.
        """
        for number in range(batch.num_rows):
            self._run(seconds, _decode, _packed(batch.slice(number, 1)))
        return self._run(seconds * batch.num_rows, _explain)

    def stop(self) -> None:
        """End the process."""
        self.pool.stop()
        self.pool.join()

    def _run(self, seconds: float, function: Callable[..., T], *arguments: object) -> T:
        """Call a function in the process."""
        try:
            result: T = self.pool.schedule(function, arguments, timeout=seconds).result()
        except TimeoutError:
            cause = f"no answer within {seconds:g} s"
        except ProcessExpired as death:
            code = death.exitcode
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except Exception as error:
            if self.pool.active:
                raise RunError(f"{type(error).__name__}: {error}") from error
            cause = "it died between two batches"
        else:
            return result
        self.stop()
        raise ProcessDiedError(cause)


def _packed(table: pa.Table) -> bytes:
    """A table as an Arrow stream; pickling a slice would send the whole table."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


class _Stages:
    """What an isolated process holds between two tasks."""

    decoder: "Decoder"
    explainer: "Explainer"
    decoded: list[pa.Table]


def _load(packed: bytes) -> None:
    """Load the model in this process."""
    from pipeline.stages.explain import Explainer

    settings: IsolatedSettings = pickle.loads(packed)  # noqa: S301 - from the parent
    _Stages.decoder, _Stages.decoded = settings.decoder, []
    _Stages.explainer = Explainer(
        settings.replica, settings.text_features, settings.schema, settings.names, Reporter()
    )


def _decode(packed: bytes) -> None:
    """Decode one image and keep it."""
    _Stages.decoded.append(_Stages.decoder(pa.ipc.open_stream(packed).read_all()))


def _explain() -> pa.Table:
    """Explain the images that were decoded since the last call."""
    decoded, _Stages.decoded = _Stages.decoded, []
    return _Stages.explainer(pa.concat_tables(decoded))
