"""Who may ask the server, and what its pages may do.

The server listens on this machine only, but any page in the user's browser can send requests to
it, and a foreign name can be made to point here (DNS rebinding). Therefore a request must name this
machine as its host and carry a cookie, which only the address that was opened gives; a request that
writes must come from a page of this server. No header allows other origins anything.
"""

import hmac
import secrets
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

HOSTS = frozenset(("127.0.0.1", "localhost"))
TOKEN = "token"
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "style-src-attr 'unsafe-inline'",  # places of maps and bars, made from numbers only
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass
class Access:
    """The secrets of one server.

    Attributes:
        read_only: whether requests that write are refused.
        token: part of the address that is opened; valid until a browser has exchanged it.
        cookie: name of the cookie, so that several servers on one machine keep apart.
        session: value of the cookie.
    """

    read_only: bool = False
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    cookie: str = field(default_factory=lambda: f"legrad_view_{secrets.token_hex(4)}")
    session: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def refusal(self, request: web.Request) -> str:
        """Why a request is not answered; empty if it is."""
        if _host(request) not in HOSTS:
            return f"this server answers as {' and '.join(sorted(HOSTS))} only"
        if not self._known(request):
            return "open the address that `legrad view` printed; it works once, in one browser"
        if request.method in ("GET", "HEAD"):
            return ""
        if self.read_only:
            return "the viewer was started with --read-only"
        own = f"http://{request.host}"
        fetched_from = request.headers.get("Sec-Fetch-Site", "same-origin")
        if request.headers.get("Origin") != own or fetched_from != "same-origin":
            return "only pages of this viewer may write"
        return ""

    def _known(self, request: web.Request) -> bool:
        given = request.cookies.get(self.cookie, "")
        return hmac.compare_digest(given.encode(), self.session.encode())

    def exchanged(self, request: web.Request) -> web.Response | None:
        """The reply that turns a valid token into the cookie; None without a valid token."""
        given = request.query.get(TOKEN, "")
        if request.method != "GET" or _host(request) not in HOSTS or not given or not self.token:
            return None
        if not hmac.compare_digest(given.encode(), self.token.encode()):
            return None
        self.token = ""
        reply = web.Response(status=303, headers={"Location": request.path})
        reply.set_cookie(self.cookie, self.session, httponly=True, samesite="Strict", path="/")
        return reply

    @property
    def middleware(self) -> Middleware:
        """Checks every request, and adds the headers to every reply."""

        @web.middleware
        async def checked(request: web.Request, handler: Handler) -> web.StreamResponse:
            reply: web.StreamResponse | None = self.exchanged(request)
            if reply is None:
                refusal = self.refusal(request)
                reply = (
                    web.Response(status=403, text=f"Refused: {refusal}.\n")
                    if refusal
                    else await _answered(request, handler)
                )
            reply.headers.update(HEADERS)
            reply.headers.setdefault("Cache-Control", "no-store")
            return reply

        return checked


def _host(request: web.Request) -> str:
    """The host that a request names, without its port."""
    return request.host.rpartition(":")[0] or request.host


async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:  # an unknown address, or another method
        return web.Response(status=error.status, text=f"{error.reason}\n")
