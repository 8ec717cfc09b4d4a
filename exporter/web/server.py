"""HTTP server: connections, their time limits, and graceful shutdown."""

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import cast

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from exporter import NAME
from exporter.web.auth import Authenticator

IDLE_TIMEOUT = 9.0
"""Seconds for a TLS handshake, for receiving a complete request, and between two requests."""
WRITE_TIMEOUT = 30.0
"""Seconds that a client has for reading a response."""
CLOSE_TIMEOUT = 5.0
"""Seconds that a client has for ending a TLS connection, and half of what it has for running
requests at shutdown: aiohttp waits twice."""
HEADERS = {"Server": NAME, "X-Content-Type-Options": "nosniff"}
"""Headers of every response."""
log = structlog.get_logger()


class Connection(web.RequestHandler):
    """One client connection: buffers at most one chunk, and logs nothing that the client sends."""

    def __init__(self, server: web.Server, max_connections: int) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=IDLE_TIMEOUT,
            lingering_time=0.0,
            access_log=None,  # type: ignore[arg-type]  # turns it off
        )
        self._server, self._max_connections = server, max_connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Pause writing as soon as data remains in the write buffer."""
        self._socket = cast("asyncio.Transport", transport)
        if len(self._server.connections) >= self._max_connections:
            hint = "raise the limit of open files (ulimit -n)"
            log.warning("too_many_connections", limit=self._max_connections, hint=hint)
            self._socket.abort()
            return
        self._socket.set_write_buffer_limits(high=1)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """Disconnect the client unless it reads in time."""
        super().pause_writing()
        loop = asyncio.get_running_loop()
        self._stalled = loop.call_later(WRITE_TIMEOUT, self._socket.abort)

    def resume_writing(self) -> None:
        """Continue writing."""
        super().resume_writing()
        self._stalled.cancel()

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
    tls = authenticator.ssl_context if authenticator else None
    max_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        server = await asyncio.get_running_loop().create_server(
            # Without a file to spare, asyncio cannot accept connections, and logs this without end.
            partial(Connection, cast("web.Server", runner.server), max_files // 2),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=IDLE_TIMEOUT if tls else None,
            ssl_shutdown_timeout=CLOSE_TIMEOUT if tls else None,
        )
        try:
            host, port = min((each.getsockname() for each in server.sockets), key=len)[:2]
            yield f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        finally:
            server.close()
    finally:
        await runner.cleanup()
