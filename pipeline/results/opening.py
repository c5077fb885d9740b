"""open_results: one run's output, or several over the same images."""

from collections.abc import Sequence
from os import PathLike, fspath

from pipeline.errors import UsageError
from pipeline.results.results import Results
from pipeline.results.run import Run, agreeing
from pipeline.runs.manifest import run_folder
from pipeline.sources.fetch import Moved
from pipeline.storage.location import Options


def open_results(
    uri: str | PathLike[str] | Sequence[str | PathLike[str]],
    storage_options: Options | None = None,
    *,
    source: Moved = None,
    source_options: Options | None = None,
) -> Results:
    """Open a run's output, finished or still growing (committed parts only).

    Nothing but the manifest is read until something is asked for. An opened result does not grow:
    open again to see what was committed since. Several outputs over the same images, such as later
    runs with new queries, open as one, joined on ``image_id``::

        from pipeline import open_results

        results = open_results("out")                  # or "s3://bucket/out"
        results                                        # in a notebook: what was run, which queries
        results.images()                               # one row an image: label, status, ...
        results.scores(["dog", "leash"], where="label = 'dog'")
        results.top("leash", 50)                       # highest scores first
        ids, heat = results.maps("leash")              # (n, h, w) raw maps
        results.overlay(ids[0], "leash").save("x.png")
        results.compare("dog", "leash")                # how the two maps of each image overlap
        results.sql("select label, avg(score__leash) from images group by label")
        open_results(["out", "out-more-queries"])      # as one

    All that they can be asked, and the columns of conditions and SQL: ``help(pipeline.Results)``.

    Args:
        uri: the output folder, local or any fsspec URI, or a list of them.
        storage_options: of the output, as fsspec takes them, such as {"key": ..., "secret": ...};
            default: credentials of the environment.
        source: where the images are now, if they moved since; by alias where they have several.
        source_options: storage options of the source; default those of the output.

    Raises:
        UsageError: no run there, a newer version wrote it, or runs that do not go together.
    """
    uris = [fspath(place) for place in ([uri] if isinstance(uri, str | PathLike) else uri)]
    if not uris:
        raise UsageError("open_results([]): expected the output of at least one run")
    places = [_checked(place, storage_options) for place in uris]
    runs = tuple(Run.open(place, storage_options, source, source_options) for place in places)
    reason = agreeing(runs) if len(runs) > 1 else None
    if reason:
        raise UsageError(f"{reason}: open_results(URI) for each.")
    return Results(runs)


def _checked(uri: str, options: Options | None) -> str:
    """Raises: UsageError: this is the folder of the data, which lies in the output."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    inside = name == "images" and not run_folder(uri, options).manifest.exists()
    if inside and parent and run_folder(parent, options).manifest.exists():
        raise UsageError(f"{uri}: this is the data of a run; open its output: {parent}")
    return uri
