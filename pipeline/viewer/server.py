"""The server: addresses, errors as pages, and its start."""

import asyncio
import socket
from collections.abc import Callable
from threading import Event

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from pipeline.errors import UnknownNameError, UsageError
from pipeline.viewer import export_pages, findings_pages, label_pages, next_pages, search_pages
from pipeline.viewer.access import TOKEN, Access
from pipeline.viewer.threads import NotReadyError
from pipeline.viewer.view import View

HOST = "127.0.0.1"
_PAUSE = 0.2
"""Seconds between two looks at whether the server shall end."""
_MOST_BYTES = 2**18
"""Largest body of a request, in bytes."""
_MOST_HEADER = 2**16
"""Longest address or header, in bytes; an address may name 48 images."""
_PATIENCE = 1.0
"""Seconds for which the server waits for pages under way when it ends."""


def make_app(view: View, access: Access) -> web.Application:
    """The application; `View.start` must have been called."""
    app = web.Application(
        middlewares=[access.middleware, _explained(view)], client_max_size=_MOST_BYTES
    )
    for pages in (findings_pages, search_pages, export_pages, next_pages, label_pages):
        app.add_routes(pages.routes(view))
    return app


def serve(view: View, port: int, ready: Callable[[str], None], done: Event | None = None) -> None:
    """Serve until the process is interrupted, or until an event.

    Args:
        port: 0 for any free one.
        ready: called with the address to open, once the server answers.
        done: ends the server when it is set, where it runs in a thread.

    Raises:
        UsageError: the port is taken.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as error:
        raise UsageError(f"--port {port}: {error.strerror}; choose another port") from error
    access = Access(view.read_only)
    address = f"http://{HOST}:{listener.getsockname()[1]}/?{TOKEN}={access.token}"
    view.start()
    try:
        app = make_app(view, access)
        asyncio.run(_serve(app, listener, lambda: ready(address), done or Event()))
    finally:
        view.close()


async def _serve(
    app: web.Application, listener: socket.socket, ready: Callable[[], None], done: Event
) -> None:
    runner = web.AppRunner(
        app,
        access_log=None,
        max_line_size=_MOST_HEADER,
        max_field_size=_MOST_HEADER,
        shutdown_timeout=_PATIENCE,
    )
    await runner.setup()
    await web.SockSite(runner, listener).start()
    ready()
    try:
        while not done.is_set():
            await asyncio.sleep(_PAUSE)
    finally:
        await runner.cleanup()


def _explained(view: View) -> Middleware:
    """Errors that users can understand, as pages."""

    @web.middleware
    async def answered(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except NotReadyError:
            if request.method == "POST":
                text = "Findings are being computed, so nothing was stored. Send it again soon."
                return _problem(view, request, 503, text)
            if not _is_person(request):
                return _problem(view, request, 503, "The results are still being read.")
            text = view.bare_pages().render("waiting.html", root="/", doing=view.doing)
            return web.Response(text=text, content_type="text/html")
        except web.HTTPNotFound:
            return _problem(view, request, 404, "There is no such page.")
        except UnknownNameError as error:
            return _problem(view, request, 404, str(error))
        except UsageError as error:
            return _problem(view, request, 400, str(error))

    return answered


def _problem(view: View, request: web.Request, status: int, text: str) -> web.Response:
    """What is wrong: as a page where a person asked, or else as text for the script that did."""
    if not _is_person(request):
        return web.Response(status=status, text=f"{text}\n")
    title = "Not found" if status == 404 else "This is not possible"
    page = view.bare_pages().render("problem.html", root="/", title=title, text=text)
    return web.Response(status=status, text=page, content_type="text/html")


def _is_person(request: web.Request) -> bool:
    """Whether a page was asked for, and not a script, its data or a picture."""
    return "text/html" in request.headers.get("Accept", "")
