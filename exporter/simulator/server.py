"""HTTP server of the simulated API: authentication, rate limit, routes, faults, compression."""

import asyncio
import gzip
import itertools
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import partial

from aiohttp import web
from aiohttp.typedefs import Handler

from exporter.simulator import v6, v7
from exporter.simulator.api import ApiRequest, Endpoint, error_response, json_response
from exporter.simulator.faults import RATE_LIMIT_HEADERS, Fault
from exporter.simulator.world import World

RECORD = web.RequestKey("record", ApiRequest)
ACTIVE_FAULTS = web.RequestKey("active_faults", list[Fault])


class Simulator:
    """The simulated API.

    `world`, `page_size`, `clock`, `rate_limit` and `faults` may be replaced while it runs.
    `requests` has the last requests.
    """

    def __init__(
        self,
        world: World,
        *,
        token: str = "demo",  # noqa: S107  not a secret
        email: str = "demo@example.com",
        page_size: int = 1000,
        clock: Callable[[], float] = time.time,
        rate_limit: int = 240,
        faults: Iterable[Fault] = (),
    ) -> None:
        self.world = world
        self.page_size = page_size
        self.clock = clock
        self.rate_limit = rate_limit
        self.faults = tuple(faults)
        self.requests: deque[ApiRequest] = deque(maxlen=10_000)
        self._bearer = f"Bearer {token}"
        self._basic = f"Basic {b64encode(f'{email}:{token}'.encode()).decode()}"
        self._used: Counter[int] = Counter()  # requests by minute of the clock
        self._numbers = itertools.count()
        self._started = clock()
        self._runner: web.AppRunner | None = None

    async def start(self, host: str | None = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL without a version; port 0 is any free port."""
        self._started = self.clock()
        app = web.Application(middlewares=[self._middleware])
        for method, path, endpoint, content_type in (*v7.ROUTES, *v6.ROUTES):
            app.router.add_route(method, path, partial(self._respond, endpoint, content_type))
        self._runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        address, port = self._runner.addresses[0][:2]
        return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"

    async def stop(self) -> None:
        """Stop listening, and close all connections."""
        if self._runner:
            await self._runner.cleanup()

    @web.middleware
    async def _middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Record and authenticate a request, apply faults, and complete the response."""
        record = await self._received(request)
        elapsed = record.time - self._started
        faults = [f for f in self.faults if f.applies(record, elapsed, self.world.seed)]
        request[RECORD], request[ACTIVE_FAULTS] = record, faults
        try:
            self._authorize(record)
            responses = (fault.instead(record) for fault in faults if fault.instead)
            response = next(filter(None, responses), None) or await handler(request)
        except web.HTTPException as error:
            response = error_response(record, error.status, error.text or error.reason)
        except ValueError as error:
            response = error_response(record, 400, str(error))
        self._record(record, response)
        for fault in faults:
            if fault.response and isinstance(response, web.Response):
                response = await fault.response(request, response)
        if isinstance(response, web.Response):
            await _compress(request, response)
        return response

    async def _received(self, request: web.Request) -> ApiRequest:
        return ApiRequest(
            number=next(self._numbers),
            time=self.clock(),
            url=request.url,
            path=request.path,
            params={name: ",".join(request.query.getall(name)) for name in request.query},
            headers=request.headers,
            body=await request.read(),
            is_v6=request.path.startswith("/v6/"),
            page_size=self.page_size,
        )

    def _authorize(self, request: ApiRequest) -> None:
        """Reject wrong credentials, and requests above the rate limit."""
        credentials = request.headers.get("Authorization", "")
        if credentials != self._bearer and not (request.is_v6 and credentials == self._basic):
            raise web.HTTPUnauthorized
        minute = int(request.time // 60)
        self._used[minute] += 1
        if self._used[minute] > self.rate_limit:
            raise web.HTTPTooManyRequests(text="Exhausted rate limit for the organization")

    async def _respond(
        self, endpoint: Endpoint, content_type: str, request: web.Request
    ) -> web.Response:
        """Return the response of an endpoint, computed in a thread."""
        record, faults = request[RECORD], request[ACTIVE_FAULTS]

        def respond() -> web.Response:
            payload = endpoint(record, self.world)
            for fault in faults:
                if fault.payload:
                    fault.payload(record, payload)
            return json_response(payload, content_type=content_type)

        return await asyncio.to_thread(respond)

    def _record(self, request: ApiRequest, response: web.StreamResponse) -> None:
        """Keep a request, and add the headers that all responses have."""
        request.status = response.status
        self.requests.append(request)
        minute = int(request.time // 60)
        remaining = max(0, self.rate_limit - self._used[minute])
        rate_limit = map(str, (self.rate_limit, remaining, minute * 60 + 60))
        headers = dict(zip(RATE_LIMIT_HEADERS, rate_limit, strict=True))
        headers |= {"Date": formatdate(request.time, usegmt=True), "Cache-Control": "no-store"}
        for name, value in headers.items():
            response.headers.setdefault(name, value)


async def _compress(request: web.Request, response: web.Response) -> None:
    """Compress a body at the lowest level, if the client accepts gzip."""
    body = response.body if isinstance(response.body, bytes) else b""
    accepted = "gzip" in request.headers.get("Accept-Encoding", "")
    if accepted and len(body) > 1024 and "Content-Encoding" not in response.headers:
        response.body = await asyncio.to_thread(gzip.compress, body, 1)
        response.headers["Content-Encoding"] = "gzip"
