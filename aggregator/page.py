"""The operator's page: a read-only view of a served run, over TLS, for the operator.

``/healthz`` and ``/readyz`` answer anybody with one word. All else is for who has
access: ``/`` for people, ``/status.json`` for programs, ``/metrics`` for Prometheus.
Style and script are files of this package; the policy that is sent along allows no
others, and nothing inline.
"""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from aggregator.page_access import Access
from aggregator.page_html import fragment, login_page, page, script, style
from aggregator.page_state import Shown, page_state
from aggregator.seen import write_seen
from fedtrain.core.errors import ConfigError, FedtrainError
from fedtrain.wire.tls import page_context

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "interest-cohort=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_OPEN = frozenset(
    {"/healthz", "/readyz", "/style.css", "/live.js", "/login", "/favicon.ico"}
)
_MOST_FORM_BYTES = 4096
_MOST_CONNECTIONS = 256
_HANDSHAKE_S = 10.0
_KEEP_S = 30.0
_CLOSING_S = 0.05
_LOG = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Doors(NamedTuple):
    """Where the page is, and who gets in.

    Attributes:
      address: Where to listen, as host:port; port 0 takes a free one.
      access: Decides about requests.
      registry: What ``/metrics`` shows.
      seen_path: Where it is kept when partners were last seen.
    """

    address: str
    access: Access
    registry: CollectorRegistry
    seen_path: Path


class Page:
    """Serves the page. Start and stop it on the same event loop.

    Args:
      shown: What it shows.
      doors: Where, and to whom.

    Attributes:
      port: Once started.
    """

    def __init__(self, shown: Shown, doors: Doors) -> None:
        self.port = 0
        self._shown = shown
        self._doors = doors
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Opens the port, and returns its number.

        Raises:
          ConfigError: If the address cannot be listened on.
        """
        authority = self._shown.authority
        context = page_context(
            authority.server_path, authority_pem=authority.authority_pem
        )
        self._runner = web.AppRunner(
            self._app(), access_log=None, keepalive_timeout=_KEEP_S
        )
        await self._runner.setup()
        host, _, port = self._doors.address.rpartition(":")
        try:
            self._listening = await asyncio.get_running_loop().create_server(
                self._connected,
                host.strip("[]") or None,
                int(port),
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_S,
                ssl_shutdown_timeout=1.0,
            )
        except OSError as error:
            await self._runner.cleanup()
            raise ConfigError(
                f"The page cannot be served on {self._doors.address}: "
                f"{error.strerror}. Choose another service.page."
            ) from error
        self.port = self._listening.sockets[0].getsockname()[1]
        self._keeping = asyncio.create_task(self._keep(context))
        return self.port

    async def stop(self, grace_s: float = 1.0) -> None:
        """Closes the port; requests that run may end within ``grace_s``."""
        del grace_s  # requests take milliseconds
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
        if self._listening is not None:
            self._listening.close()
        if self._runner is not None and self._runner.server is not None:
            server: Any = self._runner.server
            transports = [one.transport for one in server.connections]
            await self._runner.cleanup()
            for transport in filter(None, transports):
                transport.abort()  # a browser need not say goodbye
            await asyncio.sleep(_CLOSING_S)
        write_seen(self._doors.seen_path, dict(self._shown.partners))

    def _connected(self) -> asyncio.Protocol:
        """A connection's protocol; of too many, the oldest one is cut."""
        server: Any = self._runner and self._runner.server
        others = server.connections
        if len(others) >= _MOST_CONNECTIONS:
            others[0].force_close()
        protocol: asyncio.Protocol = server()
        return protocol

    async def _keep(self, context: ssl.SSLContext) -> None:
        """Takes up a rotated certificate, and writes down who was seen."""
        known = self._shown.authority.server_pair()
        while True:
            await asyncio.sleep(_KEEP_S)
            seen = dict(self._shown.partners)
            await asyncio.to_thread(write_seen, self._doors.seen_path, seen)
            try:
                pair = self._shown.authority.server_pair()
                if pair != known:
                    context.load_cert_chain(self._shown.authority.server_path)
                    known = pair
            except (OSError, FedtrainError) as error:
                _LOG.warning("The page keeps its certificate: %s", error)

    def _app(self) -> web.Application:
        app = web.Application(
            middlewares=[self._guarded], client_max_size=_MOST_FORM_BYTES
        )
        app.add_routes(
            [
                web.get("/", self._whole),
                web.get("/fragment", self._fragment),
                web.get("/status.json", self._status),
                web.get("/metrics", self._metrics),
                web.get("/healthz", _healthy),
                web.get("/readyz", self._ready),
                web.get("/style.css", _style),
                web.get("/live.js", _script),
                web.get("/favicon.ico", _no_icon),
                web.post("/login", self._login),
                web.post("/logout", self._logout),
            ]
        )
        return app

    @web.middleware
    async def _guarded(
        self, request: web.Request, handler: _Handler
    ) -> web.StreamResponse:
        """Answers strangers with a form, errors without details, all with headers."""
        if request.path not in _OPEN and not self._doors.access.allows(request):
            response: web.StreamResponse = _unknown(request)
        else:
            try:
                response = await handler(request)
            except web.HTTPException as found:
                response = _plain(found.reason, found.status)
            except Exception:  # noqa: BLE001 - the last place: no details to a browser
                _LOG.exception("The page could not answer %s", request.path)
                response = _plain("The page cannot be shown now; see the log.", 500)
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        return response

    async def _state(self) -> dict[str, Any]:
        return await asyncio.to_thread(page_state, self._shown)

    async def _whole(self, _: web.Request) -> web.Response:
        return _html(page(await self._state()))

    async def _fragment(self, _: web.Request) -> web.Response:
        return _html(fragment(await self._state()))

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(await self._state())

    async def _metrics(self, _: web.Request) -> web.Response:
        text = await asyncio.to_thread(generate_latest, self._doors.registry)
        return web.Response(body=text, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _ready(self, _: web.Request) -> web.Response:
        failure = self._shown.rounds.book.failure
        return _plain("ready", 200) if failure is None else _plain("not ready", 503)

    async def _login(self, request: web.Request) -> web.Response:
        form = await request.post()
        given = form.get("token", "")
        if not isinstance(given, str) or not self._doors.access.is_token(given.strip()):
            _LOG.warning("A wrong token was given for the page")
            return _html(login_page("That is not the token."), status=401)
        response = web.Response(status=303, headers={"Location": "/"})
        self._doors.access.begin(response)
        return response

    async def _logout(self, _: web.Request) -> web.Response:
        response = web.Response(status=303, headers={"Location": "/"})
        self._doors.access.end(response)
        return response


async def _healthy(_: web.Request) -> web.Response:
    return _plain("ok", 200)


async def _no_icon(_: web.Request) -> web.Response:
    return web.Response(status=204)


async def _style(_: web.Request) -> web.Response:
    return web.Response(text=style(), content_type="text/css")


async def _script(_: web.Request) -> web.Response:
    return web.Response(text=script(), content_type="text/javascript")


def _unknown(request: web.Request) -> web.Response:
    if request.path == "/":
        return _html(login_page(), status=401)
    response = _plain("Access needs the page's token or an operator's certificate", 401)
    response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _html(text: str, *, status: int = 200) -> web.Response:
    return web.Response(text=text, content_type="text/html", status=status)


def _plain(text: str, status: int) -> web.Response:
    return web.Response(text=f"{text}\n", status=status)
