"""open_results: the output of one run, or of several over the same images."""

from collections.abc import Sequence
from os import PathLike, fspath

from pipeline.errors import UsageError
from pipeline.results.class_labels import relabelled
from pipeline.results.results import Results
from pipeline.results.run import Run
from pipeline.runs.manifest import run_folder
from pipeline.schema import OWN_LABEL, PREDICTED_CLASS, PREDICTED_LABEL, map_column
from pipeline.sources.fetch import Moved
from pipeline.storage.location import Options


def open_results(
    uri: str | PathLike[str] | Sequence[str | PathLike[str]],
    storage_options: Options | None = None,
    *,
    source: Moved = None,
    source_options: Options | None = None,
    class_labels: str | PathLike[str] | None = None,
) -> Results:
    """Open a run's output, complete or still growing (committed parts only).

    Only the manifest is read until a method asks for more. An opened result does not grow: open it
    again to see what was committed since. Several outputs over the same images, such as later runs
    with new queries, open as one, joined on ``image_id``::

        from pipeline import open_results

        results = open_results("out")                  # or "s3://bucket/out"
        results                                        # in a notebook: the run and its queries
        results.images()                               # one row per image: label, status, ...
        results.scores(["dog", "leash"], where="label = 'dog'")
        results.top("leash", 50)                       # highest scores first
        ids, heat = results.maps("leash")              # (n, h, w) raw maps
        results.overlay(ids[0], "leash").save("x.png")
        results.compare("dog", "leash")                # how the two maps of each image overlap
        results.sql("select label, avg(score__leash) from images group by label")
        open_results(["out", "out-more-queries"])      # as one

    All methods, and the columns for conditions and SQL: ``help(pipeline.Results)``.

    Args:
        uri: the output folder, local or any fsspec URI, or a list of them.
        storage_options: fsspec options for the output, such as {"key": ..., "secret": ...};
            default: credentials of the environment.
        source: where the images are now, if they have moved; by alias if there are several.
        source_options: fsspec options for the images; default those of the output.
        class_labels: table of labels, as ``source.labels`` takes it, that replaces the labels of
            all images; an image that it does not name has none. The maps of an image's own label
            are left out where its class has changed.

    Raises:
        UsageError: a folder holds no run, a newer version wrote it, the runs do not fit together,
            or the table names none of the images.
    """
    uris = [fspath(place) for place in ([uri] if isinstance(uri, str | PathLike) else uri)]
    if not uris:
        raise UsageError("open_results([]): expected the output of at least one run")
    for place in uris:
        _refuse_data_folder(place, storage_options)
    runs = tuple(Run.open(place, storage_options, source, source_options) for place in uris)
    if len(runs) > 1:
        _refuse_disagreeing(runs)
        _refuse_two_stand_ins(runs)
    if class_labels is not None:
        table = fspath(class_labels)
        runs = tuple(relabelled(run, table, source_options or storage_options) for run in runs)
    return Results(runs)


def _refuse_data_folder(uri: str, options: Options | None) -> None:
    """Refuse ``OUT/images``, where ``OUT`` is meant."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    inside = name == "images" and not run_folder(uri, options).manifest.exists()
    if inside and parent and run_folder(parent, options).manifest.exists():
        raise UsageError(f"{uri}: this is the data folder of a run; open its output: {parent}")


def _refuse_disagreeing(runs: Sequence[Run]) -> None:
    """Refuse runs in which one name has two meanings."""
    meanings: dict[str, tuple[object, Run]] = {}
    for run in runs:
        model = run.manifest["metadata"].get("model", {})
        scored_by = (model.get("weights_sha256"), model.get("layers"), run.grid)
        names: dict[str, object] = {query.name: (query, scored_by) for query in run.queries}
        for name, meaning in names.items():
            first_meaning, first_run = meanings.setdefault(name, (meaning, run))
            if first_meaning != meaning:
                raise UsageError(
                    f"{name!r} is in {first_run.folder.uri} and in {run.folder.uri}, and does not "
                    "mean the same (its texts, the model or the layers differ). Open each run "
                    "separately: open_results(URI)"
                )


def _refuse_two_stand_ins(runs: Sequence[Run]) -> None:
    """Refuse runs of which it would be unclear whose class one of `STAND_INS` is.

    What an image's own label or prediction is, is read from the joined rows, and so once.
    """
    decided_by = {OWN_LABEL: map_column(OWN_LABEL), PREDICTED_CLASS: PREDICTED_LABEL}
    for name, column in decided_by.items():
        having = [run for run in runs if column in run.dataset.schema.names]
        keep_one_map = any(map_column(name) in run.dataset.schema.names for run in having)
        if keep_one_map and len(having) > 1:
            raise UsageError(
                f"{having[0].folder.uri} and {having[1].folder.uri}: {name!r} would be another "
                f"class in each, and one of them keeps its maps in {map_column(name)} alone. Open "
                "each run separately: open_results(URI)"
            )
