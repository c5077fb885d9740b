"""What the pages find, and what they write."""

import asyncio
import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue
from shutil import copytree
from urllib.error import HTTPError
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from legrad.queries.directions import read_vector
from pipeline import Audit, open_results
from pipeline.audit.decisions import gate, read_waivers
from pipeline.audit.label_design import ELSEWHERE
from pipeline.config.loading import load_config
from pipeline.export import selection
from pipeline.report.contents import Picture
from pipeline.results import Results
from pipeline.viewer import View, serve, server
from pipeline.viewer.embeddings import Embeddings
from pipeline.viewer.next_run import NextRun
from pipeline.viewer.search import Filters, ImageIndex
from pipeline.viewer.threads import NotReadyError, Threads, ready
from tests.audit.worlds import GRID, World
from tests.jobs.command import legrad
from tests.viewer.client import Client, client
from tests.viewer.worlds import COUNT, HOSTILE, world

GOLDEN = Path(__file__).parents[1] / "golden" / "v3"
PAIR = {"class": "dog", "cue": "ink"}


@pytest.fixture
def out(tmp_path: Path) -> str:
    return world().write(tmp_path / "out", {})


@pytest.fixture
def web(out: str) -> Iterator[Client]:
    with client(out) as opened:
        yield opened


def shown(text: str) -> list[str]:
    return re.findall(r'name="id" value="([^"]+)"', text)


def test_a_stored_query_ranks_as_the_results_do(web: Client, out: str) -> None:
    results = open_results(out)
    assert shown(web.get("/search?q=tag").text) == list(results.top("tag", 24).index)
    second = shown(web.get("/search?q=tag&page=1").text)
    assert second == list(results.top("tag", 48).index[24:])
    lowest = shown(web.get("/search?q=tag&order=lowest").text)
    scores = results.scores("tag")["tag"].dropna()
    assert lowest == list(scores.sort_values().index[:24])
    of_dogs = shown(web.get("/search?q=tag&label=dog").text)
    assert of_dogs == list(results.top("tag", 24, where="label = 'dog'").index)


def test_the_map_of_the_predicted_class_is_offered(tmp_path: Path) -> None:
    """A classifier of many classes keeps no other one."""
    made = World(["dog", "cat"] * 30, columns={"predicted_label": ["cat"] * 60})
    made.scores = {"dog": np.zeros(60), "cat": np.ones(60)}
    made.maps = {"predicted": np.random.default_rng(0).random((60, *GRID))}
    with client(made.write(tmp_path / "out", {}, ["dog", "cat"])) as opened:
        searched = opened.get("/search?q=cat").text
        image = opened.get("/image", params={"id": shown(searched)[0]}).text
    data = re.search('<script type="application/json" id="data">(.*?)</script>', searched)
    assert data is not None
    assert all("predicted" in of_image for of_image in json.loads(data[1])["images"])
    assert "Heat of the predicted class" in searched
    assert re.search('<option value="predicted"[^>]*>the predicted class', image)
    assert "<dt>predicted_label</dt><dd>cat</dd>" in image


def test_filters_without_a_text_list_in_the_order_of_the_files(web: Client) -> None:
    assert shown(web.get("/search").text) == [f"w/{number:06d}" for number in range(24)]
    assert shown(web.get("/search?status=truncated").text) == ["w/000005"]
    assert shown(web.get("/search?label=wolf").text) == []


def test_a_condition_filters_by_any_column(web: Client) -> None:
    ids = shown(web.get("/search", params={"where": "score__tag > 0.25 and label = 'cat'"}).text)
    scores = open_results(web.view.uri).scores(["tag"], where="label = 'cat'")["tag"]
    assert ids == list(scores[scores > 0.25].sort_index().index[:24])
    both = {"where": "image_id < 'w/000010'", "q": "tag", "label": "dog"}
    expected = [f"w/{n:06d}" for n in range(10) if world().labels[n] == "dog"]
    assert set(shown(web.get("/search", params=both).text)) == set(expected) - {"w/000005"}
    wrong = web.get("/search", params={"where": "nothing > 1"})
    assert wrong.status == 200
    assert "condition" in wrong.text
    assert 'value="nothing &gt; 1"' in wrong.text  # to be corrected
    assert shown(wrong.text) == []


def test_images_like_others_are_of_their_class(web: Client) -> None:
    labels = world().labels
    number = labels.index("cat")
    text = web.get(f"/search?by=like&id=w/{number:06d}").text
    assert {labels[int(name[2:])] for name in shown(text)} == {"cat"}
    assert shown(text)[0] == f"w/{number:06d}"
    assert web.get("/search?by=like&id=nothing").status == 404
    others = [f"w/{labels.index(label):06d}" for label in ("cat", "dog")]
    between = web.get("/export", params=[("like", name) for name in others]).text
    table = pd.read_csv(io.StringIO(between))
    assert set(table.head(300)["label"]) == {"cat", "dog"}
    assert set(table.dropna(subset="score").tail(100)["label"]) == {HOSTILE}
    saved = web.get("/export", params=[("like", others[0]), ("label", "dog")]).text.splitlines()
    assert len(saved) - 1 == sum(label == "dog" for label in labels)


def test_other_texts_need_the_model(web: Client) -> None:
    text = web.get("/search?q=a+red+kite").text
    assert "Only stored queries" in text
    assert 'href="search?q=tag"' in text


def test_the_selection_is_saved_as_a_table(web: Client, tmp_path: Path) -> None:
    reply = web.get("/export?q=tag&label=dog")
    (tmp_path / "images.csv").write_text(reply.text)
    table = pd.read_csv(tmp_path / "images.csv")
    assert len(table) == sum(label == "dog" for label in world().labels)
    assert set(table["label"]) == {"dog"}
    assert (table["score"].diff().dropna() <= 0).all()
    chosen = web.get("/export?q=tag&id=w/000003&id=w/000001").text.splitlines()
    assert {line.split(",")[0] for line in chosen[1:]} == {"w/000001", "w/000003"}


def test_a_selection_is_saved_for_other_tools(
    web: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"q": "tag", "label": "dog", "format": "atlas"}
    table = pq.read_table(pa.BufferReader(web.get("/export", params=found).body))
    assert table.num_rows == sum(label == "dog" for label in world().labels)
    assert table.schema.field("image").type == pa.binary()
    assert table["image"].null_count == table.num_rows  # the source is gone
    plane = np.stack([table["x"].to_numpy(), table["y"].to_numpy()])
    assert np.isfinite(plane).all()
    assert plane.var(axis=1)[0] >= plane.var(axis=1)[1] > 0
    groups = web.get("/export", params={"q": "ink", "label": "dog", "format": "groups"}).text
    frame = pd.read_csv(io.StringIO(groups))
    assert list(frame.columns) == ["image_id", "label", "has_ink", "group_name", "group"]
    assert set(frame["label"]) == {"dog"}
    regions = json.loads(web.get("/export", params={**found, "format": "coco"}).text)
    assert [c["name"] for c in regions["categories"]] == ["tag"]
    assert {a["image_label"] for a in regions["annotations"]} == {"dog"}
    for wrong in ({"format": "coco", "label": "dog"}, {"format": "pdf"}):
        assert web.get("/export", params=wrong).status == 400
    monkeypatch.setattr(selection, "MOST_PICTURES", 5)
    for kind in ("coco", "atlas", "fiftyone"):
        assert web.get("/export", params={**found, "format": kind}).status == 400


def test_texts_and_images_become_queries_of_a_run(tmp_path: Path) -> None:
    out = str(copytree(GOLDEN, tmp_path / "out"))
    with client(out) as web:
        assert web.get("/next-run.yaml").status == 400
        index, embeddings = web.run(web.view.index()), web.run(web.view.embeddings())
        ids = index.ids[1:4:2].to_pylist()
        assert ids[1] in web.get("/next", params=[("id", name) for name in ids]).text
        assert web.post("/promote", data={"title": "a red kite", "who": "ann"}).status == 303
        web.post("/promote", data={"title": "a watermark", "id": ids, "who": "ben"})
        web.post("/promote", data={"title": "a mistake", "who": "ben"})
        web.post("/demote", data={"name": "mistake"})
        assert web.post("/promote", data={"title": " "}).status == 400
        assert "ann" in web.get("/next").text
        file = tmp_path / "next-run.yaml"
        file.write_text(web.get("/next-run.yaml").text)
    config = load_config(file)
    kite, mark = config.queries
    assert (kite.name, kite.prompts, kite.role) == ("red_kite", ("a red kite",), "cue")
    assert mark.name == "watermark_2"  # the run has a query of this name
    assert mark.vector is not None
    direction = embeddings.mean_direction(index.find(ids))
    np.testing.assert_array_equal(read_vector(mark.vector), direction)
    assert config.output == f"{out}-next"


def test_a_later_next_run_has_only_what_no_run_has(tmp_path: Path) -> None:
    out = str(copytree(GOLDEN, tmp_path / "out"))
    with client(out) as web:
        web.post("/promote", data={"title": "a red kite", "who": "ann"})
        assert f"{out}-next\n" in web.get("/next-run.yaml").text
        copytree(GOLDEN, f"{out}-next")  # the next run has begun
        web.post("/promote", data={"title": "a watermark", "who": "ann"})
        file = tmp_path / "next-run.yaml"
        file.write_text(web.get("/next-run.yaml").text)
        assert load_config(file).output == f"{out}-next-2"
        kite = next(q for q in load_config(file).queries if q.name == "red_kite")
        queries = (*web.view.results.queries, kite)
    (run,) = open_results(out).runs
    run.__dict__["queries"] = queries  # as if the later run were open, too
    waiting = NextRun(Results((run,))).waiting()
    assert [query["name"] for query in waiting] == ["watermark_2"]


def test_findings_by_scores_are_shown_while_maps_are_read(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, read = threading.Event(), threading.Event()
    look = Audit.rank

    def waiting(audit: Audit, *arguments: str, **options: bool) -> pd.DataFrame:
        if audit.settings.maps and not read.is_set():
            begun.set()
            assert read.wait(60)
        return look(audit, *arguments, **options)

    monkeypatch.setattr(Audit, "rank", waiting)
    view = View(out)
    view.start()

    async def until(partial: bool) -> Audit:
        while True:
            with suppress(NotReadyError):
                overview, audit = await view.overview(), await view.audit()
                if overview.env.globals["partial"] is partial:
                    assert 'id="pairs"' in overview.index()
                    assert ("still being computed" in overview.index()) is partial
                    return audit
            await asyncio.sleep(0.05)

    def seen(partial: bool) -> Audit:
        with ThreadPoolExecutor() as pool:  # a test in a browser leaves a loop in this thread
            return pool.submit(asyncio.run, asyncio.wait_for(until(partial), 60)).result()

    try:
        first = seen(partial=True)
        assert begun.wait(60)
        read.set()
        whole = seen(partial=False)
    finally:
        read.set()
        view.close()
    assert first.findings is whole.findings
    assert (first.settings.maps, whole.settings.maps) == (False, True)
    columns = [name for name in whole.rank() if name.startswith("association__")]
    pd.testing.assert_frame_equal(first.rank()[columns], whole.rank()[columns])


def test_equal_scores_are_ordered_by_id_wherever_the_cut_falls(out: str) -> None:
    results = open_results(out)
    index, embeddings = ImageIndex.read(results), Embeddings.read(results)
    scores = np.zeros(COUNT, np.float32)
    scores[7] = 1
    scores[9] = np.nan
    found = index.ranked(scores, Filters(), 4)
    assert found.rows.tolist() == [7, 0, 1, 2]
    assert found.total == COUNT - 1
    assert embeddings.similarity(np.eye(8, dtype=np.float32)[0]).shape == (COUNT,)
    assert not index.explained()[5]


def test_a_verdict_is_kept_with_who_and_when(web: Client, out: str) -> None:
    form = {**PAIR, "verdict": "spurious", "note": "ink is ours", "who": "ann"}
    reply = web.post("/verdict", data=form)
    assert reply.status == 303
    row = Audit.from_results(out).verdicts.read().iloc[0]
    assert list(row[["class", "cue", "verdict", "note", "who"]]) == [
        *("dog", "ink", "spurious", "ink is ours", "ann")
    ]
    assert row["when"].startswith("20")
    assert "ink is ours" in web.get(f"/{reply.headers['location']}").text
    assert "spurious" in web.get("/assets/table.js").text
    with client(out) as later:
        assert "ink is ours" in later.get(f"/{reply.headers['location']}").text


def test_a_suspicion_leads_to_its_page_or_to_its_images(web: Client) -> None:
    overview = web.run(web.view.overview())
    assert overview.address(PAIR) == f"pairs/{overview.pair_files['dog', 'ink']}.html"
    assert overview.address({"class": "a b", "cue": "x&y"}) == "label?class=a+b&cue=x%26y"


def test_a_pair_that_is_not_testable_can_be_judged(tmp_path: Path) -> None:
    made = world()
    made.scores["vague"] = np.random.default_rng(3).normal(0.2, 0.01, COUNT)  # one state only
    out = made.write(tmp_path / "vague", {})
    with client(out) as web:
        pair = {"class": "dog", "cue": "vague"}
        overview = web.run(web.view.overview())
        page = f"/{overview.address(pair)}"
        assert np.isnan(
            overview.report.table.set_index(["class", "cue"]).loc[("dog", "vague")][
                "association__effect"
            ]
        )
        assert 'action="../verdict"' in web.get(page).text
        form = {**pair, "verdict": "core", "note": "told by eye", "who": "ann"}
        assert web.post("/verdict", data=form).status == 303
        assert "told by eye" in web.get(page).text
    assert list(Audit.from_results(out).verdicts.read()["cue"]) == ["vague"]


def test_a_waiver_is_what_the_gate_reads(web: Client, out: str) -> None:
    form = {**PAIR, "reason": "sold, with ink", "expires": "2099-01-31", "who": "ann"}
    reply = web.post("/waiver", data=form)
    assert reply.status == 303
    assert "sold, with ink" in web.get(f"/{reply.headers['location']}").text
    web.post("/waiver", data={**form, "reason": "sold"})
    file = f"{out}/_run/waivers.csv"
    waivers = read_waivers(file)
    assert [(w.cls, w.cue, w.reason, str(w.expires)) for w in waivers] == [
        ("dog", "ink", "sold", "2099-01-31")
    ]
    assert pd.read_csv(file)["who"].tolist() == ["ann"]
    assert not gate(Audit.from_results(out).rank(), "flagged", waivers).unused
    for wrong in ({"expires": "soon"}, {"reason": " "}, {"cue": "wolf"}):
        assert web.post("/waiver", data={**form, **wrong}).status == 400
    assert len(read_waivers(file)) == 1


def drawn(web: Client, number: int = 40) -> list[str]:
    assert web.post("/draw", data={**PAIR, "number": str(number)}).status == 303
    audit = web.run(web.view.audit())
    return [task.image_id for task in web.view.tasks(audit, ("dog", "ink"))]


def say(web: Client, image_id: str, answer: str, who: str = "ann") -> int:
    values = {**PAIR, "answers": [[image_id, answer]], "who": who}
    return web.post("/answer", json=values).status


def stored(out: str) -> pd.DataFrame:
    return pd.read_csv(Path(out) / "_run" / "labels.csv", dtype=str, keep_default_na=False)


def test_each_answer_is_on_disk_before_the_reply(web: Client, out: str) -> None:
    ids = drawn(web)
    for count, image_id in enumerate(ids[:5], 1):
        assert say(web, image_id, "present") == 200
        assert stored(out)["image_id"].nunique() == count
    assert say(web, ids[1], "absent") == 200
    assert set(stored(out).set_index("image_id").loc[[ids[1]], "answer"]) == {"absent"}
    assert say(web, ids[0], "") == 200  # undo
    assert ids[0] not in set(stored(out)["image_id"])
    assert say(web, ids[1], "present", who="ben") == 200
    assert sorted(stored(out).set_index("image_id").loc[[ids[1]], "who"].unique()) == ["ann", "ben"]
    assert say(web, "w/nothing", "present") == 400
    assert say(web, ids[2], "perhaps") == 400
    several = [[ids[5], "present"], [ids[6], "absent"]]
    assert web.post("/answer", json={**PAIR, "answers": several, "who": "ann"}).status == 200
    assert {tuple(one) for one in several} <= set(
        stored(out)[["image_id", "answer"]].itertuples(index=False, name=None)
    )
    for wrong in (None, [[ids[7]]], [[ids[7], 1]], [[ids[7], "absent"], ["w/nothing", "absent"]]):
        assert web.post("/answer", json={**PAIR, "answers": wrong}).status == 400
    assert ids[7] not in set(stored(out)["image_id"])
    assert set(stored(out)["group"]) <= {"dog", ELSEWHERE}
    assert stored(out)["probability"].astype(float).between(0, 1).all()


def test_the_estimate_moves_and_the_audit_reads_the_same_file(web: Client, out: str) -> None:
    has = world().has["ink"]
    ids = drawn(web)
    assert web.get("/estimate", params=PAIR).text == "null"
    widths = []
    for part in (ids[:30], ids[30:]):
        for image_id in part:
            say(web, image_id, "present" if has[int(image_id[2:])] else "absent")
        values = json.loads(web.get("/estimate", params=PAIR).text)
        widths.append(values["difference_high"] - values["difference_low"])
        assert values["difference_low"] < values["difference"] < values["difference_high"]
    assert widths[1] < widths[0]
    audit = Audit.from_results(out, labels=(f"{out}/_run/labels.csv",))
    row = audit.rank().set_index(["class", "cue"]).loc[("dog", "ink")]
    assert row["association__verified"]
    assert row["labels"] == values["labels"]
    reply = web.post("/refresh", data={"class": "dog", "cue": "ink"})
    assert re.fullmatch(r"pairs/dog-ink-[0-9a-f]{8}\.html", reply.headers["location"])
    web.run(web.view.work("findings", lambda: None))
    overview = web.view._overview.result()
    ours = overview.report.table.set_index(["class", "cue"]).loc[("dog", "ink")]
    assert ours["association__verified"]


def test_who_comes_later_goes_on(web: Client, out: str) -> None:
    ids = drawn(web)
    say(web, ids[0], "present")
    with client(out) as later:
        text = later.get("/label", params=PAIR).text
        assert f'[["{ids[0]}","ink","present","ann"' in text.replace("\\u0022", '"')
        assert drawn(later, 60)[:1] == ids[:1]
        say(later, ids[1], "absent", who="ben")
    assert set(stored(out)["who"]) == {"ann", "ben"}


def test_the_command_refuses_what_is_no_run(tmp_path: Path) -> None:
    assert legrad("view", str(tmp_path), "--no-browser").returncode == 2


def test_a_later_run_is_opened_together_with_the_first(out: str, tmp_path: Path) -> None:
    more = World(world().labels).cue("fog", {"cat": 0.6})
    later = more.write(tmp_path / "later", {})
    with client([out, later]) as web:
        assert shown(web.get("/search?q=fog").text) == list(
            open_results(later).top("fog", 24).index
        )
        assert len(shown(web.get("/search?q=tag").text)) == 24
        assert web.get("/search", params={"where": "score__fog > 0.2", "q": "tag"}).status == 200
        overview = web.run(web.view.overview())
        assert {"tag", "ink", "fog"} <= set(overview.report.table["cue"])
        form = {"class": "cat", "cue": "fog", "verdict": "core", "who": "ann"}
        address = web.post("/verdict", data=form).headers["location"]
        assert "fog" in web.get(f"/{address}").text
    assert list(Audit.from_results(out).verdicts.read()["cue"]) == ["fog"]


def test_images_with_sets_of_labels_are_found_by_each(tmp_path: Path) -> None:
    made = world()
    made.labels = [None] * COUNT
    made.sets = [["dog", "cat"] if number % 2 else ["dog"] for number in range(COUNT)]
    with client(made.write(tmp_path / "sets", {})) as web:
        ids = shown(web.get("/search?label=cat").text)
        assert ids == [f"w/{number:06d}" for number in range(1, 48, 2)]
        assert web.get("/export?id=w/000001").text.splitlines()[1].startswith('w/000001,"dog,')


def test_nothing_is_lost_while_findings_are_computed(web: Client) -> None:
    ids = drawn(web)
    done = web.view._audits
    web.view._audits = (Future(), Future())
    assert say(web, ids[0], "present") == 503  # so the page tells that it is not stored
    for path in ("/estimate", "/label"):
        assert web.get(path, params=PAIR).status == 503  # a script cannot read a page
    waiting = web.get("/estimate", params=PAIR, headers={"Accept": "text/html"})
    assert (waiting.status, waiting.headers["content-type"][:9]) == (200, "text/html")
    web.view._audits = done
    assert say(web, ids[0], "present") == 200


def test_people_go_on_while_findings_are_computed_again(
    web: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = drawn(web)
    before = web.run(web.view.audit())
    begun, go_on, opened = threading.Event(), threading.Event(), []
    open_audit = web.view._open_audit

    def waiting() -> Audit:
        opened.append(1)
        begun.set()
        assert go_on.wait(60)
        return open_audit()

    monkeypatch.setattr(web.view, "_open_audit", waiting)
    try:
        assert web.post("/refresh").status == 303
        assert begun.wait(60)
        for _ in range(2):
            assert web.post("/refresh").status == 303  # begins once more, with later answers
        assert web.run(web.view.audit()) is before
        assert say(web, ids[0], "present") == 200
        assert "still being computed" in web.get("/").text
    finally:
        go_on.set()
    end = time.monotonic() + 60
    while web.view.computing or len(opened) < 2:
        assert time.monotonic() < end, "the findings were not computed again"
        web.run(web.view.work("findings", lambda: None))
    web.run(web.view.work("findings", lambda: None))
    assert web.run(web.view.audit()) is not before
    assert len(opened) == 2
    assert "still being computed" not in web.get("/").text


def test_work_that_meets_a_time_limit_is_not_waited_for_again() -> None:
    failed: Future[None] = Future()
    failed.set_exception(TimeoutError("the storage"))
    with ThreadPoolExecutor() as pool, pytest.raises(TimeoutError, match="the storage"):
        pool.submit(asyncio.run, ready(failed)).result()


def test_a_picture_of_one_viewer_is_not_shown_for_another(
    web: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both may have the same address; the cookie's name differs."""
    made = Picture(b"webp", (1, 1), (0.0, 0.0, 1.0, 1.0))
    monkeypatch.setattr(web.view.pictures, "copy", lambda image_id, side: made)
    reply = web.get("/picture?side=192&id=w/000001")
    assert reply.body == b"webp"
    assert "max-age" in reply.headers["cache-control"]
    assert reply.headers["vary"] == "Cookie"


def test_an_address_may_name_every_image_of_a_page(out: str) -> None:
    addresses: Queue[str] = Queue()
    done = threading.Event()
    arguments = (View(out), 0, addresses.put, done)
    thread = threading.Thread(target=serve, args=arguments, daemon=True)
    thread.start()
    try:
        address = addresses.get(timeout=60)
        with pytest.raises(HTTPError) as refused:  # no cookie, but the address was read
            urlopen(f"{address.split('?')[0]}search?like={'x' * 20_000}", timeout=60)
        assert refused.value.code == 403
    finally:
        done.set()
        thread.join(60)


def test_a_browser_in_the_terminal_does_not_hold_the_server_up(
    out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, closed = threading.Event(), threading.Event()

    def browse(address: str) -> None:
        opened.set()
        closed.wait(60)

    def serving(view: View, port: int, ready: Callable[[str], None]) -> None:
        ready("http://127.0.0.1:1/")
        assert opened.wait(60)

    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setattr(server, "serve", serving)
    try:
        assert legrad("view", out).returncode == 0  # while the browser is still open
    finally:
        closed.set()


@pytest.mark.starts
def test_ctrl_c_ends_the_viewer_while_findings_are_computed(out: str) -> None:
    code = (
        "import sys, time; from jobs import cli; from pipeline.viewer.view import View;"
        "View._compute = lambda *values: time.sleep(600);"
        f"sys.argv = ['legrad', 'view', {out!r}, '--no-browser']; cli.main()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        late = threading.Timer(120, process.kill)  # ends the line that would never come
        late.start()
        try:
            assert process.stdout is not None
            assert "http://127.0.0.1:" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0
        finally:
            late.cancel()
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_findings_are_computed_with_less_priority() -> None:
    threads = Threads({"own": 1, "other": 1}, background=["other"])
    own, other = (threads.submit(n, _priority).result() for n in ("own", "other"))
    assert other > own
    threads.close()


def _priority() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
