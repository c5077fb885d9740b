"""A browser's requests to a viewer in this process."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from pipeline.viewer import View, make_app
from pipeline.viewer.access import Access


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


@dataclass
class Client:
    """Requests with the cookie that an earlier reply set, and from the viewer's own origin."""

    view: View
    access: Access
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    http: TestClient

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.http.port}"

    def request(self, method: str, path: str, **options: Any) -> Reply:
        async def ask() -> Reply:
            answer = await self.http.request(method, path, allow_redirects=False, **options)
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Reply(answer.status, headers, await answer.read())

        reply: Reply = self.run(ask())
        return reply

    def get(self, path: str, **options: Any) -> Reply:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> Reply:
        headers = {"Origin": self.origin, **options.pop("headers", {})}
        return self.request("POST", path, headers=headers, **options)

    def enter(self) -> Reply:
        return self.get("/", params={"token": self.access.token})

    def forget(self) -> None:
        self.http.session.cookie_jar.clear()


@contextmanager
def client(out: str | Sequence[str], *, enter: bool = True, **options: Any) -> Iterator[Client]:
    """A viewer that has read its output.

    Its loop runs in a thread of its own, since the browser's tests leave one in this thread.
    """
    view = View(out, **options)
    view.start()
    access = Access(view.read_only)
    with ThreadPoolExecutor(1) as thread, asyncio.Runner() as runner:

        async def start() -> TestClient:
            for name in ("index", "texts", "embeddings", "findings", "audit"):
                await view.work(name, lambda: None)
            made = TestClient(TestServer(make_app(view, access), host="127.0.0.1"))
            await made.start_server()
            return made

        def run(work: Coroutine[Any, Any, Any]) -> Any:
            return thread.submit(runner.run, work).result()

        opened = Client(view, access, run, run(start()))
        try:
            if enter:
                opened.enter()
            yield opened
        finally:
            run(opened.http.close())
            view.close()
            thread.submit(runner.close).result()
