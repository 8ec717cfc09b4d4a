"""HTTP server of the simulated API: authentication, rate limit, faults, compression."""

import asyncio
import ssl
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY, dataclass, field
from email.utils import formatdate

from aiohttp import web
from yarl import URL

from exporter.simulator import v6, v7
from exporter.simulator.api import ApiRequest, error_response, json_response
from exporter.simulator.faults import RATE_LIMIT_HEADERS, Fault
from exporter.simulator.world import World

ENDPOINTS = v7.ENDPOINTS | v6.ENDPOINTS


@dataclass
class Simulator:
    """The simulated API.

    `world`, `page_size`, `clock`, `rate_limit` and `faults` may be replaced while it runs.
    `requests` has the last requests.
    """

    world: World
    _: KW_ONLY
    token: str = "demo"  # noqa: S105  not a secret
    email: str = "demo@example.com"
    page_size: int = 1000
    clock: Callable[[], float] = time.time
    rate_limit: int = 240
    faults: Iterable[Fault] = ()
    requests: deque[ApiRequest] = field(default_factory=lambda: deque(maxlen=10_000))
    _used: Counter[int] = field(default_factory=Counter)  # requests by minute of the clock
    _number: int = 0
    _started: float = 0.0
    _runner: web.AppRunner | None = None

    async def start(
        self, host: str | None = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
    ) -> str:
        """Listen, and return the base URL without a version; port 0 is any free port."""
        self._started = self.clock()
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._respond)
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=tls).start()
        address, port = self._runner.addresses[0][:2]
        return str(URL.build(scheme="http", host=address, port=port))

    async def stop(self) -> None:
        """Stop listening, and close all connections."""
        if self._runner:
            await self._runner.cleanup()

    async def _respond(self, request: web.Request) -> web.StreamResponse:
        received = ApiRequest(
            number=self._number,
            time=self.clock(),
            method=request.method,
            url=request.url,
            path=request.path,
            params={name: ",".join(request.query.getall(name)) for name in request.query},
            headers=request.headers,
            body=await request.read(),
            is_v6=request.path.startswith("/v6/"),
            page_size=self.page_size,
        )
        self.requests.append(received)
        self._number += 1
        elapsed = received.time - self._started
        faults = [f for f in self.faults if f.applies(received, elapsed, self.world.seed)]
        response: web.StreamResponse
        try:
            self._authorize(received)
            response = await asyncio.to_thread(self._query, received, faults)
        except web.HTTPException as error:
            response = error_response(received, error.status, error.text or error.reason)
        except ValueError as error:
            response = error_response(received, 400, str(error))
        for name, value in self._headers(received.time).items():
            response.headers.setdefault(name, value)
        for fault in faults:
            if fault.response and isinstance(response, web.Response):
                response = await fault.response(request, response)
        return response

    def _authorize(self, request: ApiRequest) -> None:
        """Reject wrong credentials, and requests above the rate limit."""
        accepted = {f"Bearer {self.token}"}
        if request.is_v6:
            accepted.add(f"Basic {b64encode(f'{self.email}:{self.token}'.encode()).decode()}")
        if request.headers.get("Authorization") not in accepted:
            raise web.HTTPUnauthorized
        minute = int(request.time // 60)
        self._used[minute] += 1
        if self._used[minute] > self.rate_limit:
            raise web.HTTPTooManyRequests(text="Exhausted rate limit for the organization")

    def _query(self, request: ApiRequest, faults: list[Fault]) -> web.Response:
        """Return the response of a fault or an endpoint."""
        for fault in faults:
            if fault.instead and (response := fault.instead(request)):
                return response
        path = request.path.removesuffix(".json") if request.is_v6 else request.path
        if (request.method, path) not in ENDPOINTS:
            raise web.HTTPNotFound
        payload = ENDPOINTS[request.method, path](request, self.world)
        for fault in faults:
            if fault.payload:
                fault.payload(request, payload)
        return json_response(payload, request)

    def _headers(self, now: float) -> dict[str, str]:
        """Return the headers that all responses have."""
        minute = int(now // 60)
        remaining = max(0, self.rate_limit - self._used[minute])
        rate_limit = map(str, (self.rate_limit, remaining, minute * 60 + 60))
        headers = dict(zip(RATE_LIMIT_HEADERS, rate_limit, strict=True))
        return headers | {"Date": formatdate(now, usegmt=True), "Cache-Control": "no-store"}
