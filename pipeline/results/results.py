"""What a run found, read when asked for: `Results`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.results import frames, maps, pictures, show, sql
from pipeline.results.joined import FrameRows
from pipeline.results.map_columns import Maps
from pipeline.results.opened import Opened
from pipeline.results.rows import Where

if TYPE_CHECKING:
    from PIL import Image

Ids = NDArray[np.object_]


@dataclass(frozen=True, repr=False, eq=False)
class Results(Opened):
    """The results of a run, or of several over the same images; see `open_results`.

    Every row is an image, and ``status`` says whether it has scores and maps. The queries are in
    `queries` (``[q.name for q in results.queries]``), the other columns in `images`. Maps are raw:
    (h, w) float32, non-negative, comparable within a query, not between queries.

    Wherever there is a ``where``, it is an SQL condition on the columns, or a pyarrow expression;
    both are pushed down, so that only matching row groups and the columns needed are read::

        results.scores(["leash"], where="label = 'dog' and width >= 512")
        results.images(where=pc.field("score__leash") > 0.3)    # import pyarrow.compute as pc

    Text in SQL stands in single quotes. In conditions and SQL the score of query Q is the column
    ``score__Q``, its map ``heatmap__Q``, the map's maximum ``heatmap_max__Q``. Frames come by
    image_id, so they join, and ids of one choose the maps of another. A query's name need not be
    its label (``{q.label: q.name for q in results.queries if q.label}``); ``own_label`` stands for
    the class of each image and has maps only::

        found = results.scores(["leash"]).join(results.images(["label"]))
        ids, heat = results.maps("leash", found.query("leash > 0.2").index)
        tops = {q.name: results.top(q.name, 50) for q in results.queries if q.role == "class"}

    The files are ``OUT/images/*.parquet``, plain Parquet to any tool; a map is its bytes, row by
    row, times its maximum / 255::

        duckdb.sql(f"select label, avg(score__leash) from '{out}/images/*.parquet' group by label")
        row = pl.scan_parquet(f"{out}/images/*.parquet").head(1).collect().row(0, named=True)
        file = glob.glob(f"{out}/images/*.parquet")[0]
        about = json.loads(pq.read_schema(file).metadata[b"legrad"])
        cells = np.frombuffer(row["heatmap__leash"], np.uint8).reshape(about["grid"])
        heat = cells / 255 * row["heatmap_max__leash"]    # both are null where an image failed

    While a run is going they may hold rows that it will take back; `open_results` shows committed
    ones only. Frames read without this package have maps, too, once ``pipeline.results`` is
    imported: ``pd.read_parquet(...).legrad.maps("leash")``.

    A map says where, not whether: where a cue is absent, its heat often lies on the object. Whether
    it is there is what the score tells.

    Attributes:
        runs: the runs that were opened, each with its ``folder``, ``manifest``, ``grid``, ...
        joined: frames of one's own, see `join`.
    """

    def __repr__(self) -> str:
        where = " + ".join(repr(run.folder.uri) for run in self.runs)
        return f"Results({where}: {len(self):,} images, {len(self.queries)} queries)"

    def _repr_html_(self) -> str:
        return show.html(self)

    def images(self, columns: Sequence[str] | None = None, where: Where = None) -> pd.DataFrame:
        """One row an image, by image_id: where it lies, label, size, status, carried columns.

        Example::

            results.images(["label", "width"], where="status = 'ok'")

        Args:
            columns: only these (``score__Q`` is one, too); default all but scores, maps and
                embeddings.
            where: which rows.

        Raises:
            KeyError: no such column.  UsageError: the condition does not fit the columns.
        """
        return frames.images(self.rows, columns, where)

    def scores(self, queries: Sequence[str] | None = None, where: Where = None) -> pd.DataFrame:
        """Cosines, one row an image (by image_id), one float32 column a query; NaN for failures.

        Example::

            results.scores(["dog", "leash"]).join(results.images(["label"]))

        Raises:
            KeyError: no such query.  UsageError: the condition does not fit the columns.
        """
        names = [query.name for query in self.queries] if queries is None else queries
        return frames.scores(self.rows, self._names(names), where)

    def top(
        self, query: str, n: int = 10, where: Where = None, columns: Sequence[str] = ("label",)
    ) -> pd.DataFrame:
        """The n images with the highest score for a query, by image_id, highest first.

        Of equal scores the one with the first image_id counts; images without a score are left out.

        Example::

            results.top("watermark", 50, where="label = 'fish'").index    # their image ids

        Returns:
            ``columns`` and ``score``.
        """
        self._names([query])
        if n < 1:
            raise UsageError(f"top: n={n}, expected 1 or more")
        return frames.top(self.rows, query, n, columns, where)

    def maps(
        self,
        query: str,
        image_ids: Sequence[str] | None = None,
        *,
        where: Where = None,
        normalized: bool = False,
        size: int | tuple[int, int] | None = None,
    ) -> tuple[Ids, Maps]:
        """Maps of one query, all in memory; for more than fit there, see `iter_maps`.

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
            query: its name, or ``own_label`` for the class of each image's own label.
            image_ids: which images, in this order; default all, in the order of the files.
            where: which images, instead.
            normalized: each map from its lowest to its highest value, 0 to 1.
            size: (height, width), or the side of a square, to bring them to, bilinear; default the
                grid of the patches.

        Returns:
            ids (n,) and maps (n, h, w) float32; NaN where an image has no map: it failed, or
            `store.maps` left it out. Padding is 0, see `Preprocess.cells`.

        Raises:
            KeyError: no such query, or no such image.  UsageError: the condition does not fit.
        """
        if not isinstance(query, str):
            raise UsageError(f"maps({query!r}): expected one query; iter_maps takes several")
        chosen = maps.Chosen(self.rows, self._runs_of([query]), image_ids, where)
        return maps.read(chosen, normalized=normalized, size=size)

    def iter_maps(
        self, query: str | Sequence[str], *, where: Where = None, normalized: bool = False
    ) -> Iterator[tuple[Ids, Maps]]:
        """Maps a few thousand images at a time, in bounded memory, for passes over everything.

        Example::

            label, sums = results.images(["label"])["label"], defaultdict(float)
            for ids, heat in results.iter_maps("leash"):
                for name in label[ids].unique():
                    sums[name] += np.nansum(heat[label[ids] == name], axis=0)

        Args:
            query: a name: maps are (n, h, w); or several: (n, queries, h, w).
            where: which images.
            normalized: each map from its lowest to its highest value, 0 to 1.

        Yields:
            ids (n,) and maps, NaN where an image has none.

        Raises:
            KeyError: no such query.  UsageError: the condition does not fit the columns.
        """
        names = [query] if isinstance(query, str) else list(query)
        if not names or len(set(names)) < len(names):
            raise UsageError(f"iter_maps({names}): expected one or more queries, each once")
        chosen = maps.Chosen(self.rows, self._runs_of(names), None, where)
        for ids, heat in maps.stream(chosen, normalized=normalized):
            yield ids, heat[:, 0] if isinstance(query, str) else heat

    def compare(
        self,
        query_a: str,
        query_b: str,
        where: Where = None,
        image_ids: Sequence[str] | None = None,
    ) -> pd.DataFrame:
        """How far the maps of two queries lie on each other, image by image.

        Ask it of images that show both: the map of an absent cue often lies on the object, and then
        overlaps most. Choose the score above which a cue is there by looking at `top` and at images
        around it. Maps also overlap by chance, how much depends on the model: measure it on maps
        of different images. Either query may be ``own_label``.

        Example::

            there = "label = 'fish' and score__watermark > 0.1"    # 0.1: looked up, see above
            found = results.compare("own_label", "watermark", where=there)
            found.sort_values("pearson").tail(10)

            from pipeline.results.overlap import overlap
            a, b = (results.maps(query, where=there)[1] for query in ("own_label", "watermark"))
            overlap(a, np.roll(b, 1, axis=0)).mean()    # by chance; counts padding, if there is any

        Args:
            query_a: name of the first query.
            query_b: name of the second query.
            where: which images.
            image_ids: which images, in this order, instead.

        Returns:
            By image_id, with p and q the two maps divided by their sums: ``cosine`` p.q / |p||q|,
            ``soft_iou`` sum min(p, q) / sum max(p, q), ``shared_mass`` sum min(p, q), ``pearson``
            their correlation; over the cells that are not padding. NaN where one of the two has no
            map, or no heat.

        Raises:
            KeyError: no such query, or no such image.  UsageError: the condition does not fit.
        """
        runs = self._runs_of([query_a, query_b])
        return maps.compare(maps.Chosen(self.rows, runs, image_ids, where), query_a, query_b)

    def to_long(
        self,
        queries: Sequence[str] | None = None,
        where: Where = None,
        columns: Sequence[str] = ("label",),
    ) -> pd.DataFrame:
        """One row an (image, query): image_id, ``columns``, query, role, score, heatmap_max.

        Example::

            results.to_long(["dog", "leash"]).groupby(["label", "query"]).score.mean()
        """
        names = [query.name for query in self.queries] if queries is None else queries
        known = {query.name: query for query in self.queries}
        asked = [
            (self._runs_of([name])[name], known[name]) for name in dict.fromkeys(self._names(names))
        ]
        return frames.to_long(self.rows, asked, columns, where)

    def sql(self, query: str) -> pd.DataFrame:
        """The answer of DuckDB to a query on the table ``images``, all columns of all rows.

        ``decode_map(heatmap__Q, heatmap_max__Q)`` gives a map as FLOAT[], row by row, NULL for
        none; it is known here only.

        Example::

            results.sql("select label, avg(score__leash) as s from images group by label")
            results.sql("select image_id, list_max(decode_map(heatmap__leash, "
                        "heatmap_max__leash)) as peak from images where label = 'dog'")

        Raises:
            UsageError: DuckDB does not understand it.
        """
        return sql.answer(self.rows, query)

    def join(self, frame: pd.DataFrame | pd.Series) -> "Results":
        """These results with columns of one's own, by image_id (the frame's index or a column).

        They are then columns like any other, in `images`, in conditions and in SQL. Images that the
        frame lacks have nulls; images that only the frame has are left out.

        Example::

            mine = results.join(pd.read_csv("splits.csv"))    # columns image_id, split
            mine.scores(["leash"], where="split = 'test'")

        Raises:
            UsageError: no image_id in the frame, none that is here, one that stands twice, or a
                column that is there.
        """
        own = FrameRows(frame)
        own.require_some_of(self.rows)
        same = set(own.schema.names) & set(self.rows.schema.names) - {"image_id"}
        if same:
            raise UsageError(f"join: {sorted(same)} are columns already; rename them in the frame")
        return Results(self.runs, (*self.joined, own))

    def image(self, image_id: str) -> "Image.Image":
        """The upright RGB original, fetched again from its shard.

        Raises:
            KeyError: no such image.  UsageError: the shard is gone.
        """
        return pictures.original(self, image_id)

    def overlay(self, image_id: str, query: str, *, peak: float | None = None) -> "Image.Image":
        """The original with a query's heat over it; ``.save("x.png")`` writes it.

        Args:
            image_id: which image.
            query: its name, or ``own_label``.
            peak: the heat shown at full strength; default the map's own maximum, so that an absent
                cue glows as a present one does. To compare images give one for all, such as
                ``results.to_long(["leash"]).heatmap_max.quantile(0.99)``.

        Raises:
            KeyError: no such image or query.
            UsageError: the image has no map (its status says why, or `store.maps` left it out), or
                its shard is gone.
        """
        return pictures.overlay(self, image_id, query, peak)

    def figure(self, image_ids: Sequence[str], queries: Sequence[str]) -> "Image.Image":
        """Pictures and their heat: an image a row, a query a column, one colour scale a column.

        Example::

            results.figure(results.top("leash", 5).index, ["own_label", "leash"])
        """
        shown = ([one] if isinstance(one, str) else list(one) for one in (image_ids, queries))
        return show.figure(self, *shown)
