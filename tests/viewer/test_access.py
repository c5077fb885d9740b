"""Attacks: what others may not ask, and what must not reach a page or the disk."""

from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from pipeline.config.audit_settings import AuditConfig
from pipeline.errors import UsageError
from pipeline.viewer import View
from tests.viewer.client import Client, client
from tests.viewer.worlds import HOSTILE, world

GOLDEN = Path(__file__).parents[1] / "golden" / "v3"
WRITES = ("/verdict", "/waiver", "/refresh", "/draw", "/answer", "/promote", "/demote")
PAGES = (
    "/index.html",
    "/search",
    "/label",
    "/export",
    "/next",
    "/next-run.yaml",
    "/assets/report.css",
    "/nothing",
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> str:
    return world().write(tmp_path_factory.mktemp("viewer") / "out", {})


@pytest.fixture(scope="module")
def web(out: str) -> Iterator[Client]:
    """One viewer for all tests that only ask."""
    with client(out) as opened:
        yield opened


@pytest.fixture
def stranger(out: str) -> Iterator[Client]:
    with client(out, enter=False) as opened:
        yield opened


def files(out: str) -> dict[str, bytes]:
    return {str(p): p.read_bytes() for p in sorted(Path(out).rglob("*")) if p.is_file()}


def test_nothing_is_answered_without_the_token(stranger: Client) -> None:
    for path in PAGES:
        assert stranger.get(path).status == 403
    assert stranger.get("/", params={"token": "guessed"}).status == 403
    assert stranger.get("/", params={"token": ""}).status == 403
    assert stranger.post("/refresh").status == 403
    assert stranger.get("/index.html", cookies={stranger.access.cookie: "x"}).status == 403


def test_the_token_is_exchanged_once_for_a_cookie(stranger: Client) -> None:
    token = stranger.access.token
    first = stranger.enter()
    assert first.status == 303
    assert first.headers["location"] == "/"
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert token not in cookie
    assert stranger.get("/index.html").status == 200
    stranger.forget()
    assert stranger.get("/", params={"token": token}).status == 403
    assert stranger.get("/", params={"token": ""}).status == 403


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil.example:1"],
)
def test_a_foreign_host_name_is_refused(stranger: Client, host: str) -> None:
    rebound = {"Host": host}
    token = {"token": stranger.access.token}
    assert stranger.get("/", params=token, headers=rebound).status == 403
    assert stranger.enter().status == 303  # the token was not used up
    assert stranger.get("/index.html", headers=rebound).status == 403
    own = {"Host": f"localhost:{stranger.http.port}"}
    cookie = {stranger.access.cookie: stranger.access.session}
    assert stranger.get("/index.html", headers=own, cookies=cookie).status == 200


@pytest.mark.parametrize("path", WRITES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_posts_from_elsewhere_write_nothing(
    web: Client, out: str, path: str, headers: dict[str, str]
) -> None:
    before = files(out)
    form = {"class": "dog", "cue": "ink", "verdict": "core", "number": "5"}
    assert web.post(path, data=form, headers=headers).status == 403
    assert web.request("POST", path, data=form).status == 403  # without an origin
    assert web.get(path).status == 405
    assert files(out) == before


def test_other_origins_get_no_permission(web: Client) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for reply in (web.request("OPTIONS", "/verdict", headers=asked), web.get("/", headers=asked)):
        assert not [name for name in reply.headers if name.startswith("access-control")]
    assert web.request("OPTIONS", "/verdict", headers=asked).status == 403


def test_read_only_writes_nothing(out: str) -> None:
    before = files(out)
    with client(out, read_only=True) as web:
        form = {"class": "dog", "cue": "ink", "verdict": "core", "number": "5"}
        for path in WRITES:
            assert web.post(path, data=form).status == 403
        assert "<form method=" not in web.get("/label?class=dog&cue=ink").text
    assert files(out) == before


def test_read_only_computes_suspicions_and_stores_nothing(tmp_path: Path) -> None:
    out = str(copytree(GOLDEN, tmp_path / "out"))
    before = files(out)
    with client(out, read_only=True) as web:
        assert not web.run(web.view.audit()).no_suspicions
    assert files(out) == before
    edits = AuditConfig(depth="reliance")
    with pytest.raises(UsageError, match=r"reliance\.work"):
        View(out, settings=edits, read_only=True)
    elsewhere = {"depth": "reliance", "reliance": {"work": str(tmp_path / "edits")}}
    assert View(out, settings=AuditConfig.model_validate(elsewhere), read_only=True).read_only


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../pages.py",
        "/assets/%2e%2e/pages.py",
        "/assets/%2e%2e%2fpages.py",
        "/assets/..%5cpages.py",
        "/assets//etc/passwd",
        "/pairs/..%2f..%2fetc%2fpasswd.html",
        "/picture?side=192&id=../../../../etc/passwd",
        "/picture?side=192&id=/etc/passwd",
        "/image?id=../_run/manifest.json",
    ],
)
def test_no_path_leads_out(web: Client, path: str) -> None:
    reply = web.get(path)
    assert reply.status == 404
    assert "root:" not in reply.text


def test_every_reply_forbids_foreign_code(web: Client) -> None:
    pair = next(iter(web.run(web.view.overview()).pair_files.values()))
    for path in ("/", f"/pairs/{pair}.html", "/search", "/label", "/nothing", "/assets/view.js"):
        headers = web.get(path).headers
        assert "script-src 'self';" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_names_are_text_and_pages_run_no_inline_script(web: Client) -> None:
    overview = web.run(web.view.overview())
    pair = overview.pair_files[HOSTILE, "tag"]
    paths = [
        "/",
        "/search",
        "/label",
        f"/pairs/{pair}.html",
        f"/classes/{overview.class_files[HOSTILE]}.html",
    ]
    web.post("/draw", data={"class": HOSTILE, "cue": "tag", "number": "5"})
    for path in [*paths, "/label"]:
        params = {"class": HOSTILE, "cue": "tag"} if path == "/label" else {"q": HOSTILE}
        text = web.get(path, params=params).text
        assert "<img src=x" not in text
        assert "onerror=alert(1)>" not in text
        assert "<script>" not in text
    assert "<img src=x" not in web.get("/assets/table.js").text


def test_a_source_that_vanished_leaves_the_pages(web: Client) -> None:
    assert web.get("/search?q=tag").text.count("<figure>") == 24
    reply = web.get("/picture?side=192&id=w/000001")
    assert reply.status == 404
    assert web.get("/image?id=w/000001").status == 200


def test_what_is_wrong_is_told_as_text_within_a_page(web: Client) -> None:
    asked = {"Accept": "text/html"}
    reply = web.get("/label", params={"class": HOSTILE, "cue": "<b>x"}, headers=asked)
    assert reply.status == 400
    assert 'href="/search"' in reply.text
    assert "<b>x" not in reply.text
    assert web.get("/image?id=none", headers=asked).headers["content-type"].startswith("text/html")
    for path in ("/nothing", "/pairs/gone-00000000.html"):
        reply = web.get(path, headers=asked)
        assert reply.status == 404
        assert 'href="/index.html"' in reply.text


def test_a_verdict_is_refused_where_it_makes_no_sense(web: Client, out: str) -> None:
    before = files(out)
    for form in (
        {"class": "dog", "cue": "ink"},
        {"class": "dog", "cue": "ink", "verdict": "maybe"},
        {"class": "wolf", "cue": "ink", "verdict": "core"},
    ):
        assert web.post("/verdict", data=form).status == 400
    assert web.post("/answer", data="[1]").status == 400
    assert web.post("/draw", data={"class": "dog", "cue": "ink", "number": "-1"}).status == 400
    assert files(out) == before


ATTACKS = {
    "read": "exists (select 1 from read_text('{secret}') where content like 'the secret%')",
    "scan": "exists (select 1 from '{secret}')",
    "write": "true) ; copy (select 1) to '{written}'; select (true",
    "attach": "true); attach '{written}'; select (true",
    "unlock": "true); set lock_configuration = false; select (true",
    "python": "exists (select 1 from numbered)",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_conditions_neither_read_files_nor_write_any(
    attack: str, web: Client, tmp_path: Path
) -> None:
    secret, written = tmp_path / "secret.csv", tmp_path / "written"
    secret.write_text("the secret,1\n")
    where = ATTACKS[attack].format(secret=secret, written=written)
    page = web.get("/search", params={"where": where})
    assert page.status == 200
    assert "condition" in page.text
    assert "w/000001" not in page.text
    assert not written.exists()
