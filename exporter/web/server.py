"""HTTP server: connections, their limits, and graceful shutdown."""

import asyncio
import resource
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from exporter import NAME
from exporter.web.auth import Authenticator

MAX_CONNECTIONS = 512
"""Maximum number of connections; one with TLS needs 300 KiB."""
MAX_HANDSHAKES = 100
"""Maximum number of concurrent TLS handshakes; asyncio allocates 256 KiB for each."""
IDLE_TIMEOUT = 9.0
"""Seconds for a TLS handshake, for receiving a complete request, and between two requests."""
STALL_TIMEOUT = 5.0
"""Seconds after which a client is disconnected that takes no byte of what is sent to it."""
CLOSE_TIMEOUT = 5.0
"""Seconds that a client has for ending a TLS connection, and half of what it has for running
requests at shutdown: aiohttp waits twice."""
HEADERS = {"Server": NAME, "X-Content-Type-Options": "nosniff"}
"""Headers of every response."""
log = structlog.get_logger()


class Pool(dict["Connection", None]):
    """Connections up to a limit, the one that is inactive longest first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def enter(self, connection: "Connection") -> None:
        """Add a connection; beyond the limit, abort the first one that runs no request."""
        self[connection] = None
        if len(self) > self._limit:
            hint = "restrict access to the port; if ulimit -n is low, raise it"
            log.warning("too_many_connections", limit=self._limit, hint=hint)
            next(each for each in self if not each.is_busy).abort()


class Connection(web.RequestHandler):
    """One client connection: buffers at most one chunk, and logs nothing that the client sends."""

    is_busy = False  # whether a request is running

    def __init__(
        self, server: web.Server, authenticator: Authenticator | None, open_: Pool, handshakes: Pool
    ) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=0.0,
            access_log=None,  # type: ignore[arg-type]  # turns it off
        )
        self._authenticator, self._open, self._handshakes = authenticator, open_, handshakes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the TLS handshake, or wait for a request."""
        self._socket = cast("asyncio.Transport", transport)
        self._timer = self._loop.call_later(IDLE_TIMEOUT, self.abort)
        self._open.enter(self)
        tls = self._authenticator and self._authenticator.config().tls
        if tls:
            self._handshake = self._loop.create_task(self._shake_hands(tls))
        else:
            self._begin(self._socket)

    async def _shake_hands(self, tls: ssl.SSLContext) -> None:
        if self._socket.is_closing():
            return
        self._handshakes.enter(self)
        transport = None
        with suppress(OSError):  # also ssl.SSLError
            transport = await self._loop.start_tls(
                self._socket, self, tls, server_side=True, ssl_shutdown_timeout=CLOSE_TIMEOUT
            )
        self._handshakes.pop(self, None)
        if transport and not transport.is_closing():
            self._begin(transport)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Parse a request."""
        self.touch()
        super().data_received(data)

    def _begin(self, transport: asyncio.Transport) -> None:
        self._timer.cancel()
        transport.set_write_buffer_limits(high=1)  # pauses writing as soon as data remains
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop counting the connection."""
        self._leave()
        super().connection_lost(exc)

    def abort(self, reason: str = "") -> None:
        """Disconnect the client; `reason` is why it does not get the whole response."""
        if reason:
            log.warning("response_aborted", reason=reason)
        self._leave()
        self._socket.abort()

    def _leave(self) -> None:
        self._open.pop(self, None)
        self._handshakes.pop(self, None)
        self._timer.cancel()

    def touch(self) -> None:
        """Note that the client is active."""
        if self in self._open:
            self._open[self] = self._open.pop(self)  # is last now

    def pause_writing(self) -> None:
        """Disconnect the client unless it continues to read."""
        super().pause_writing()
        self._unsent = -1
        self._watch()

    def resume_writing(self) -> None:
        """Continue writing."""
        super().resume_writing()
        self._timer.cancel()

    def _watch(self) -> None:
        if self.stalled_for() >= STALL_TIMEOUT:
            self.abort("stalled")
        else:
            self._timer = self._loop.call_later(0.5, self._watch)

    def stalled_for(self) -> float:
        """Return the seconds since the client has last taken something; 0 if all is sent."""
        if not self.writing_paused:
            return 0.0
        unsent, now = self._socket.get_write_buffer_size(), self._loop.time()
        if unsent != self._unsent:
            self._unsent, self._progress = unsent, now
        return now - self._progress

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the response to a malformed request, or to one whose handler failed."""
        if isinstance(exc, HttpProcessingError):
            log.warning("malformed_request", problem=type(exc).__name__)
        else:
            log.error("request_crashed", error=type(exc).__name__, exc_info=exc)
        text = "malformed HTTP request" if status < 500 else "internal error; please report it"
        response = web.Response(status=status, text=f"{text}\n", headers=HEADERS)
        response.force_close()
        return response


@asynccontextmanager
async def serving(
    app: web.Application, host: str | None, port: int, authenticator: Authenticator | None = None
) -> AsyncIterator[str]:
    """Serve until the context exits, then let running requests finish; yields the URL.

    Raises OSError if the address is not available.
    """
    runner = web.AppRunner(app, shutdown_timeout=CLOSE_TIMEOUT)
    await runner.setup()
    scheme = "https" if authenticator and authenticator.config().tls else "http"
    # Without a file to spare, asyncio cannot accept connections, and logs this without end.
    max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    pools = Pool(min(MAX_CONNECTIONS, max_files // 2)), Pool(MAX_HANDSHAKES)
    protocol = partial(Connection, cast("web.Server", runner.server), authenticator, *pools)
    try:
        server = await asyncio.get_running_loop().create_server(protocol, host, port)
        try:
            host, port = min((each.getsockname() for each in server.sockets), key=len)[:2]
            yield f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            server.close()
    finally:
        await runner.cleanup()
