"""`Results`: the rows, scores and maps of a run, read when a method asks for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from pipeline.errors import UsageError, counted
from pipeline.results import answers, drawing, sql
from pipeline.results.answers import Ids, Selection
from pipeline.results.decoding import Maps
from pipeline.results.gallery import Gallery, gallery
from pipeline.results.opened import Opened
from pipeline.results.rows import Where, name_list

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True, repr=False, eq=False)
class Results(Opened):
    """The results of a run, or of several over the same images; see `open_results`.

    Each row is an image, and its ``status`` says whether it has scores and maps. `queries` lists
    the queries (``[q.name for q in results.queries]``), `images` gives the other columns. Maps are
    raw: (h, w) float32, non-negative, comparable within a query, not between queries.

    ``where`` is an SQL condition on the columns, or a pyarrow expression. Both are pushed down:
    only row groups that may match and the columns that are needed are read::

        results.scores(["leash"], where="label = 'dog' and width >= 512")
        results.images(where=pc.field("score__leash") > 0.3)    # import pyarrow.compute as pc

    Text in SQL stands in single quotes. In conditions and SQL, the score of query Q is the column
    ``score__Q``, its map ``heatmap__Q``, the map's maximum ``heatmap_max__Q``. Frames are indexed
    by image_id, so they join, and the ids of one select the maps of another. A query's name may
    differ from its label (``{q.label: q.name for q in results.queries if q.label}``);
    ``own_label`` stands for the class of each image, ``predicted`` for the class that a classifier
    predicts; both have maps only::

        scores = results.scores(["leash"]).join(results.images(["label"]))
        ids, heat = results.maps("leash", scores.query("leash > 0.2").index)
        tops = {q.name: results.top(q.name, 50) for q in results.queries if q.role == "class"}

    The files are ``OUT/images/*.parquet``, plain Parquet that any tool reads. A map is its bytes,
    row by row, times its maximum / 255::

        duckdb.sql(f"select label, avg(score__leash) from '{out}/images/*.parquet' group by label")
        row = pl.scan_parquet(f"{out}/images/*.parquet").head(1).collect().row(0, named=True)
        file = glob.glob(f"{out}/images/*.parquet")[0]
        about = json.loads(pq.read_schema(file).metadata[b"legrad"])
        cells = np.frombuffer(row["heatmap__leash"], np.uint8).reshape(about["grid"])
        heat = cells / 255 * row["heatmap_max__leash"]    # both are null where an image failed

    While a run is in progress the files may hold rows that are not committed and will be written
    again; `open_results` shows committed rows only. After ``import pipeline.results``, frames read
    by pandas have maps, too: ``pd.read_parquet(...).legrad.maps("leash")``.

    A map says where a cue would be, not whether it is present: where a cue is absent, its heat
    often lies on the object. The score says whether it is present.

    Attributes:
        runs: the opened runs, each with its ``folder``, ``manifest``, ``grid``, ...
    """

    def __repr__(self) -> str:
        where = " + ".join(repr(run.folder.uri) for run in self.runs)
        queries = counted(len(self.queries), "query", "queries")
        return f"Results({where}: {counted(len(self), 'image')}, {queries})"

    def _repr_html_(self) -> str:
        return drawing.card(self)

    def images(
        self, columns: str | Sequence[str] | None = None, where: Where = None
    ) -> pd.DataFrame:
        """One row per image, by image_id: source, label, size, status, carried columns.

        Example::

            results.images(["label", "width"], where="status = 'ok'")

        Args:
            columns: only these (``score__Q`` is a column, too); default all but scores, maps and
                embeddings.
            where: which rows.

        Raises:
            KeyError: no such column.  UsageError: the condition does not fit the columns.
        """
        return answers.images(self.rows, columns, where)

    def scores(
        self, queries: str | Sequence[str] | None = None, where: Where = None
    ) -> pd.DataFrame:
        """Cosines by image_id, one float32 column per query; NaN for images that failed.

        Example::

            results.scores(["dog", "leash"]).join(results.images(["label"]))

        Raises:
            KeyError: no such query.  UsageError: the condition does not fit the columns.
        """
        return answers.scores(self.rows, self._names(queries), where)

    def top(
        self,
        query: str,
        n: int = 10,
        where: Where = None,
        columns: str | Sequence[str] = ("label",),
    ) -> pd.DataFrame:
        """``columns`` and ``score`` of the n images with the highest scores, highest first.

        Equal scores are ordered by image_id; images without a score are left out.

        Example::

            results.top("watermark", 50, where="label = 'fish'").index    # their image ids
        """
        self._names([query])
        if n < 1:
            raise UsageError(f"top: n={n}, expected 1 or more")
        return answers.top(self.rows, query, n, columns, where)

    def maps(
        self,
        query: str,
        image_ids: Sequence[str] | None = None,
        *,
        where: Where = None,
        normalized: bool = False,
        size: int | tuple[int, int] | None = None,
    ) -> tuple[Ids, Maps]:
        """Maps of one query, all in memory; for more maps than fit there, see `iter_maps`.

        Example::

            ids, heat = results.maps("leash", where="status = 'ok'")
            label = results.images(["label"])["label"][ids]
            means = {name: heat[label == name].mean(axis=0) for name in label.unique()}
            plt.imshow(means["dog"])    # np.nanmean where some images have no map

            picture = results.image(ids[0])    # or at once: results.overlay(ids[0], "leash")
            left, top, right, bottom = results.preprocess.box(*picture.size)
            plt.imshow(picture)
            plt.imshow(heat[0], extent=(left, right, bottom, top), alpha=0.5)

        Args:
            query: its name, ``own_label`` for the class of each image's own label, or
                ``predicted`` for the class that a classifier predicts.
            image_ids: which images, in this order; default all, in the order of the files.
            where: a condition instead of ids.
            normalized: scale each map from its lowest to its highest value, to 0 to 1.
            size: (height, width), or the side of a square, to interpolate to (bilinear); default
                the grid of the patches.

        Returns:
            ids (n,) and maps (n, h, w) float32; NaN where an image has no map, because it failed
            or `store.maps` left it out. Padding is 0, see `Preprocess.cells`.

        Raises:
            KeyError: no such query, or no such image.  UsageError: the condition does not fit.
        """
        if not isinstance(query, str):
            raise UsageError(f"maps({query!r}): expected one query; iter_maps takes several")
        selection = Selection(self.rows, self._runs_of([query]), image_ids, where)
        return answers.maps(selection, normalized=normalized, size=size)

    def iter_maps(
        self, query: str | Sequence[str], *, where: Where = None, normalized: bool = False
    ) -> Iterator[tuple[Ids, Maps]]:
        """Maps of a few thousand images at a time, in bounded memory, for passes over all images.

        Example::

            label, sums = results.images(["label"])["label"], defaultdict(float)
            for ids, heat in results.iter_maps("leash"):
                for name in label[ids].unique():
                    sums[name] += np.nansum(heat[label[ids] == name], axis=0)

        Args:
            query: a name, which gives maps (n, h, w), or several, which give (n, queries, h, w).
            where: see `maps`.
            normalized: see `maps`.

        Yields:
            ids (n,) and maps; NaN where an image has none.

        Raises:
            KeyError: no such query.  UsageError: the condition does not fit the columns.
        """
        names = name_list(query)
        if not names or len(set(names)) < len(names):
            raise UsageError(f"iter_maps({names}): expected one or more queries, each once")
        selection = Selection(self.rows, self._runs_of(names), None, where)
        for ids, heat in answers.iter_maps(selection, normalized=normalized):
            yield ids, heat[:, 0] if isinstance(query, str) else heat

    def compare(
        self,
        query_a: str,
        query_b: str,
        where: Where = None,
        image_ids: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """How much the maps of two queries overlap, image by image.

        Select images that show both: the map of an absent cue often lies on the object, and then
        overlaps most. Choose the score above which a cue is present by looking at `top` and at
        images around it. Maps also overlap by chance; how much depends on the model, so measure it
        on maps of different images. Either query may be ``own_label``
        or ``predicted``.

        Example::

            with_cue = "label = 'fish' and score__watermark > 0.1"    # 0.1: chosen as described
            overlaps = results.compare("own_label", "watermark", where=with_cue)
            overlaps.sort_values("pearson").tail(10)

            from pipeline.results.answers import overlap
            a, b = (results.maps(query, where=with_cue)[1] for query in ("own_label", "watermark"))
            overlap(a, np.roll(b, 1, axis=0)).mean()    # by chance; includes padding, if any

        Args:
            query_a: the name of one query.
            query_b: the name of the other.
            where: which images.
            image_ids: which images, in this order, instead of a condition.

        Returns:
            By image_id, ``cosine``, ``soft_iou``, ``shared_mass`` and ``pearson``, as defined by
            `pipeline.results.answers.overlap`, over the cells that are not padding.

        Raises:
            KeyError: no such query, or no such image.  UsageError: the condition does not fit.
        """
        runs = self._runs_of([query_a, query_b])
        selection = Selection(self.rows, runs, image_ids, where)
        return answers.compare(selection, query_a, query_b)

    def to_long(
        self,
        queries: str | Sequence[str] | None = None,
        where: Where = None,
        columns: str | Sequence[str] = ("label",),
    ) -> pd.DataFrame:
        """One row per (image, query): image_id, ``columns``, query, role, score, heatmap_max.

        Example::

            results.to_long(["dog", "leash"]).groupby(["label", "query"]).score.mean()
        """
        runs = self._runs_of(self._names(queries))
        return answers.to_long(self.rows, runs, columns, where)

    def sql(self, query: str) -> pd.DataFrame:
        """The result of a DuckDB query on the table ``images``, which has all columns.

        ``decode_map(heatmap__Q, heatmap_max__Q)`` gives a map as FLOAT[], row by row, or NULL for
        no map; only this method defines it.

        Example::

            results.sql("select label, avg(score__leash) as s from images group by label")
            results.sql("select image_id, list_max(decode_map(heatmap__leash, "
                        "heatmap_max__leash)) as peak from images where label = 'dog'")

        Raises:
            UsageError: DuckDB rejects the query.
        """
        return sql.answer(self.rows, query)

    def image(self, image_id: str) -> "Image.Image":
        """The upright RGB original, fetched again from its shard.

        Raises:
            KeyError: no such image.  UsageError: the shard no longer exists.
        """
        return drawing.original(self, image_id)

    def overlay(self, image_id: str, query: str, *, peak: float | None = None) -> "Image.Image":
        """The original with a query's heat over it; ``.save("x.png")`` writes it.

        Args:
            image_id: the image.
            query: name of a query, ``own_label`` or ``predicted``.
            peak: the heat shown at full strength; default the map's own maximum, which makes an
                absent cue as bright as a present one. To compare images use one value for all, such
                as ``results.to_long(["leash"]).heatmap_max.quantile(0.99)``.

        Raises:
            KeyError: no such image or query.
            UsageError: the image has no map (its status says why, or `store.maps` left it out), or
                its shard no longer exists.
        """
        return drawing.overlay(self, image_id, query, peak)

    def figure(self, image_ids: str | Sequence[str], queries: str | Sequence[str]) -> "Image.Image":
        """Pictures and their heat: an image per row, a query and a colour scale per column.

        Example::

            results.figure(results.top("leash", 5).index, ["own_label", "leash"])
        """
        return drawing.figure(self, name_list(image_ids), name_list(queries))

    def view(
        self,
        query: str,
        image_ids: Sequence[str] | None = None,
        *,
        n: int = 12,
        where: Where = None,
    ) -> Gallery:
        """A grid of pictures with a query's heat, in a cell of a notebook; ``print`` lists them.

        Args:
            query: name of a query; with ``image_ids`` also ``own_label`` or ``predicted``.
            image_ids: which images, in this order; default the ``n`` with the highest scores.
            n: number of images if no ids are given.
            where: a condition that these ``n`` images meet, if no ids are given.

        Raises:
            KeyError: no such query or image.
            UsageError: too many images, ids and a condition, or a condition that does not fit.
        """
        if image_ids is None:
            image_ids = list(self.top(query, n, where).index)
        elif where is not None:
            raise UsageError("view: expected image_ids or where, found both")
        return gallery(self, query, name_list(image_ids))
