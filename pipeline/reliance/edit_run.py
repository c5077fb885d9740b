"""Edits the images of pairs on a pool of model replicas.

The edits of a pair are one file, which is written atomically. A run that was killed continues with
the pairs whose files are missing.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray
from PIL import Image
from ray.data import ActorPoolStrategy

from legrad.preprocess import Preprocess, to_rgb
from pipeline.cluster.guard import explain_end
from pipeline.cluster.resources import Resources, resources_of_cluster
from pipeline.cluster.session import RETRIES, data_settings, session
from pipeline.config import RuntimeConfig
from pipeline.config.audit_settings import RelianceConfig
from pipeline.errors import UsageError
from pipeline.reliance.editor import Editor
from pipeline.reliance.edits import write_edits
from pipeline.reliance.regions import Cells, cells_of
from pipeline.reliance.shortlist import PairTask
from pipeline.results.reproduce import pixels_again
from pipeline.runs.manifest import RunFolder
from pipeline.sources.fetch import Origin
from pipeline.stages.decode import Decoding
from pipeline.stages.replica import ReplicaSettings
from pipeline.storage.location import Location

Tell = Callable[[str], None]


@dataclass(frozen=True)
class EditJob:
    """What every replica needs.

    Attributes:
        settings: how to load the model.
        digest: digest that its weights must have.
        directions: query -> (E,) direction.
        config: sizes of the regions.
        origin: source of the images.
        decoding: how images are decoded.
        masks: folder of true masks, or None.
        folder: folder for the files of edits.
    """

    settings: ReplicaSettings
    digest: str
    directions: Mapping[str, NDArray[np.float32]]
    config: RelianceConfig
    origin: Origin
    decoding: Decoding
    masks: Location | None
    folder: Location


class EditStage:
    """An actor of Ray Data that writes the file of a pair and returns its counts."""

    def __init__(self, job: EditJob) -> None:
        self.job = job
        model = job.settings.load_reader_of_texts()
        if model.digest != job.digest:
            raise UsageError(f"{job.settings.model.name} has other weights here than in the run")
        self.preprocess: Preprocess = model.preprocess
        self.grid = model.grid
        layers = job.settings.model.layers or model.default_layers
        self.editor = Editor(model, layers, job.directions, job.config, self._fetch, self._mask)

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Edit a batch of one row: ``task`` (JSON) and ``name`` of its file."""
        task = PairTask.from_json(str(batch["task"][0]))
        table = self.editor.edit(task)
        write_edits(self.job.folder.child(str(batch["name"][0])), table)
        lost = table["error"].length() - table["error"].null_count
        return {
            "class": np.array([task.cls]),
            "cue": np.array([task.cue]),
            "lost": np.array([lost]),
        }

    def _fetch(self, row: Mapping[str, Any]) -> NDArray[np.uint8] | str:
        return pixels_again(self.job.origin, row, self.preprocess, self.job.decoding)

    def _mask(self, cue: str, image_id: str) -> Cells | None:
        if self.job.masks is None:
            return None
        file = self.job.masks.child(cue, f"{image_id}.png")
        if not file.exists():
            return None
        with Image.open(io.BytesIO(file.read())) as image:
            bright = self.preprocess(to_rgb(image)).max(axis=0) > 127
        return cells_of(bright, self.grid)


def run_edits(
    tasks: Mapping[str, PairTask],
    prepare: Callable[[Resources], Any],
    folder: RunFolder,
    tell: Tell,
    stage: type = EditStage,
) -> None:
    """Prepare the model, and edit the pairs.

    Args:
        tasks: file name -> pair; may be empty, then the model is only prepared.
        prepare: makes the job, once it is known on which resources it runs.
        folder: folder of the files, for messages.
        tell: called with a message about every pair.
        stage: the actor that works on a pair; it is made with the job.

    Raises:
        UsageError: the cluster lacks the resources, or the model cannot be loaded.
        RunError: a replica died twice, or the storage failed; the same command continues.
    """
    with session(), data_settings():
        resources = resources_of_cluster(RuntimeConfig(), tell)
        job = prepare(resources)
        rows = [{"name": name, "task": task.to_json()} for name, task in tasks.items()]
        if not rows:
            return
        tell(f"editing and embedding at most {sum(t.edits for t in tasks.values()):,} images")
        try:
            batches = _stage(stage, rows, job, resources).iter_batches(batch_size=1)
            for done, batch in enumerate(batches, start=1):
                lost = int(batch["lost"][0])
                note = f", {lost} images could not be fetched" if lost else ""
                pair = f"{batch['class'][0]} / {batch['cue'][0]}"
                tell(f"edited {pair} ({done} of {len(rows)}){note}")
        except Exception as error:
            clear = explain_end(error, folder)
            if clear is error:
                raise
            raise clear from error


def _stage(stage: type, rows: Sequence[Mapping[str, str]], job: Any, resources: Resources) -> Any:
    return ray.data.from_items(list(rows), override_num_blocks=len(rows)).map_batches(
        stage,
        fn_constructor_kwargs={"job": job},
        batch_size=1,
        compute=ActorPoolStrategy(size=min(resources.actors, len(rows))),
        num_cpus=resources.cpus,
        num_gpus=resources.gpus,
        max_task_retries=RETRIES,
    )
