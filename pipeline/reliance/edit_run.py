"""The edits of all pairs through a pool of model replicas; what is done is not done again.

A pair is one file, written in one piece: a run that was killed continues with the pairs that are
not there yet.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray
from numpy.typing import NDArray
from PIL import Image
from ray.data import ActorPoolStrategy, DataContext

from legrad.preprocess import Preprocess, to_rgb
from pipeline.cluster.failures import explain_end
from pipeline.cluster.resources import Resources, resources_of_cluster
from pipeline.cluster.session import RETRIES, session
from pipeline.config import RuntimeConfig
from pipeline.config.audit_settings import RelianceConfig
from pipeline.errors import UsageError
from pipeline.reliance.editor import Editor
from pipeline.reliance.regions import Cells, cells_of
from pipeline.reliance.task import PairTask
from pipeline.results.reproduce import pixels_again
from pipeline.runs.manifest import RunFolder
from pipeline.sources.fetch import Origin
from pipeline.stages.replica import ReplicaSettings
from pipeline.storage.location import Location

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Work:
    """What every replica needs.

    Attributes:
        settings: of the model.
        digest: that its weights must have.
        directions: query -> (E,).
        config: how much is edited.
        origin: where the images are.
        max_pixels: larger images are refused.
        masks: folder of true masks, or None.
        folder: where the files of the pairs go.
    """

    settings: ReplicaSettings
    digest: str
    directions: Mapping[str, NDArray[np.float32]]
    config: RelianceConfig
    origin: Origin
    max_pixels: int
    masks: Location | None
    folder: Location


class EditStage:
    """An actor of Ray Data: a pair in, its file written, a row with counts out."""

    def __init__(self, work: Work) -> None:
        self.work = work
        model = work.settings.load()
        if model.digest != work.digest:
            raise UsageError(f"{work.settings.model.name}: has other weights here than in the run")
        self.preprocess: Preprocess = model.preprocess
        self.grid = model.grid
        layers = work.settings.model.layers or model.default_layers
        self.editor = Editor(model, layers, work.directions, work.config, self._fetch, self._mask)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """A batch of one: ``task`` (JSON) and ``name`` of its file."""
        task = PairTask.from_json(str(batch["task"][0]))
        table = self.editor.edit(task)
        self.work.folder.child(str(batch["name"][0])).write(packed(table))
        lost = table["error"].length() - table["error"].null_count
        return {
            "class": np.array([task.cls]),
            "cue": np.array([task.cue]),
            "rows": np.array([table.num_rows]),
            "lost": np.array([lost]),
        }

    def _fetch(self, row: Mapping[str, Any]) -> NDArray[np.uint8] | str:
        return pixels_again(self.work.origin, row, self.preprocess, self.work.max_pixels)

    def _mask(self, cue: str, image_id: str) -> Cells | None:
        if self.work.masks is None:
            return None
        file = self.work.masks.child(cue, f"{image_id}.png")
        if not file.exists():
            return None
        with Image.open(io.BytesIO(file.read())) as image:
            bright = self.preprocess(to_rgb(image)).max(axis=0) > 127
        return cells_of(bright, self.grid)


def packed(table: pa.Table) -> bytes:
    """A table as a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def run_edits(
    tasks: Mapping[str, PairTask], work: Callable[[Resources], Work], folder: RunFolder, tell: Tell
) -> None:
    """Edit what has no file yet.

    Args:
        tasks: file name -> pair.
        work: what the replicas need, once their place is known.
        folder: where the files go, for messages.
        tell: told of every pair.

    Raises:
        UsageError: the cluster has no room, or the model cannot be loaded.
        RunError: a replica died twice, or the storage refused; the same command continues.
    """
    with session(), _quiet():
        spread = resources_of_cluster(RuntimeConfig(), tell)
        ready = work(spread)
        rows = [{"name": name, "task": task.to_json()} for name, task in tasks.items()]
        tell(f"editing and embedding {sum(t.edits for t in tasks.values()):,} images at most")
        try:
            found = _stage(rows, ready, spread).iter_batches(batch_size=1)
            for done, batch in enumerate(found, start=1):
                lost = int(batch["lost"][0])
                note = f", {lost} images could not be fetched" if lost else ""
                pair = f"{batch['class'][0]} / {batch['cue'][0]}"
                tell(f"edited {pair} ({done} of {len(rows)}){note}")
        except Exception as error:
            clear = explain_end(error, folder)
            if clear is error:
                raise
            raise clear from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Ray Data without bars of its own."""
    context = DataContext.get_current()
    names = ("enable_progress_bars", "print_on_execution_start")
    before = {name: getattr(context, name) for name in names}
    for name in names:
        setattr(context, name, False)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)


def _stage(rows: Sequence[Mapping[str, str]], work: Work, spread: Resources) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*ray_remote_args.* is deprecated")
        return ray.data.from_items(list(rows), override_num_blocks=len(rows)).map_batches(
            EditStage,
            fn_constructor_kwargs={"work": work},
            batch_size=1,
            compute=ActorPoolStrategy(size=min(spread.actors, len(rows))),
            num_cpus=spread.cpus,
            num_gpus=spread.gpus,
            max_task_retries=RETRIES,
        )
