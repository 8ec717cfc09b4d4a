"""A server on a real port that answers as the ThousandEyes API does, for one pretend company.

Left to others: the company (world), the words of each version (v6, v7), and what it does wrong on request (faults).
The rules are those of the public documentation: authentication, rate limits, time ranges, pagination, status codes.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import re
import socket
import struct
import time
from base64 import b64encode
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from itertools import islice

from aiohttp import web
from multidict import CIMultiDict

from exporter.simulator import v6, v7
from exporter.simulator.faults import Fault, FaultSpec
from exporter.simulator.wire import (
    RATE_LIMIT,
    RATE_REMAINING,
    RATE_RESET,
    Call,
    Filters,
    Kind,
    Payload,
    Position,
    RefusedError,
    Reply,
    Version,
    compressed,
    from_cursor,
    instant,
    matches,
    to_cursor,
)
from exporter.simulator.world import DAY, HOUR, AccountGroup, Agent, Session, World

REMEMBERED = 10_000
"""How many requests are kept for who wants to look."""
BLOCKED_AFTER = 120
"""Answers 401 within an hour after which an address is shut out, as documented."""
RETENTION = 30 * DAY
WORTH_COMPRESSING = 1024
UNITS = {"": 1, "s": 1, "m": 60, "h": HOUR, "d": DAY, "w": 7 * DAY}

V6, V7 = "/v6", "/v7"
REAL_USER_TESTS = f"{V7}/endpoint/test-results/real-user-tests"
AGENT = re.compile(rf"{V7}/endpoint/agents/([^/]+)")


@dataclass(frozen=True, slots=True)
class Route:
    """Which version answers what, and to which methods."""

    version: Version
    kind: Kind
    methods: tuple[str, ...]


ROUTES = {
    f"{REAL_USER_TESTS}/filter": Route(v7, "sessions", ("POST",)),
    f"{REAL_USER_TESTS}/networks/filter": Route(v7, "networks", ("POST",)),
    f"{V7}/endpoint/agents": Route(v7, "agents", ("GET",)),
    f"{V7}/account-groups": Route(v7, "groups", ("GET",)),
    f"{V6}/endpoint-data/user-sessions": Route(v6, "sessions", ("GET", "POST")),
    f"{V6}/endpoint-data/user-sessions/network": Route(v6, "networks", ("GET", "POST")),
    f"{V6}/endpoint-agents": Route(v6, "agents", ("GET",)),
    f"{V6}/account-groups": Route(v6, "groups", ("GET",)),
}


@dataclass(frozen=True, slots=True)
class Request:
    """What the server saw of one request, and the status that it settled on; `time` in Unix seconds of its clock."""

    time: float
    method: str
    path: str
    query: str
    body: bytes
    status: int
    scheme: str


class RateLimit:
    """How often an organization may ask: so many requests in each minute of the clock, whoever asks and what for."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        self.reset = 0

    def admits(self, now: float) -> bool:
        """Count one request at Unix time `now`, and tell whether it may pass."""
        self._turn(now)
        self.used += 1
        return self.used <= self.limit

    def headers(self, now: float) -> dict[str, str]:
        """Return what every reply tells about the limit; the reset is in Unix seconds."""
        self._turn(now)
        return {
            RATE_LIMIT: str(self.limit),
            RATE_REMAINING: str(max(0, self.limit - self.used)),
            RATE_RESET: str(self.reset),
        }

    def _turn(self, now: float) -> None:
        reset = int(now) // 60 * 60 + 60
        if reset != self.reset:
            self.reset, self.used = reset, 0


class Simulator:
    """The pretend API; `clock` tells the Unix time that it lives in.

    `world` and `faults` may be exchanged while it runs, `page_size` and `clock` too.
    `requests` holds the newest requests, `counts` how many ended so, by path and status.
    """

    def __init__(
        self,
        world: World,
        *,
        token: str = "demo",  # noqa: S107 - what the demo asks for is no secret
        email: str = "demo@example.com",
        page_size: int = 1000,
        clock: Callable[[], float] = time.time,
        rate_limit: int = 240,
        faults: Iterable[FaultSpec] = (),
    ) -> None:
        self.world = world
        self.page_size = page_size
        self.clock = clock
        self.faults = tuple(faults)
        self.requests: deque[Request] = deque(maxlen=REMEMBERED)
        self.counts: Counter[tuple[str, int]] = Counter()
        self._bearer = f"Bearer {token}"
        self._basic = f"Basic {b64encode(f'{email}:{token}'.encode()).decode()}"
        self._rate = RateLimit(rate_limit)
        self._unauthorized: dict[str, deque[float]] = {}
        self._numbers = itertools.count()
        self._started = clock()
        self._runner: web.ServerRunner | None = None
        self._stopping = asyncio.Event()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> str:
        """Listen, and return the base URL without a version; port 0 takes a free one."""
        self._started = self.clock()
        self._stopping.clear()
        server = web.Server(self._serve, handler_cancellation=True, access_log=None)
        self._runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        address, port = self._runner.addresses[0][:2]
        return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"

    async def stop(self) -> None:
        """Close every connection, even those that still wait for an answer."""
        self._stopping.set()
        if self._runner:
            await self._runner.cleanup()
            self._runner = None

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Take one request through: what is it, may it, the answer, the record, the way back."""
        call = Call(
            number=next(self._numbers),
            now=self.clock(),
            method=request.method,
            origin=f"{request.scheme}://{request.host}",
            path=request.path,
            params=_params(request),
            headers=request.headers,
            body=await request.read(),
            peer=request.remote or "",
        )
        elapsed = call.now - self._started
        struck = [spec.fault for spec in self.faults if spec.strikes(elapsed, call, self.world.seed)]
        reply = self._refusal(call)
        if reply is None:
            reply = await asyncio.to_thread(self._answer, call, struck)
        reply = self._finish(call, reply, struck)
        scheme = call.headers.get("Authorization", "").partition(" ")[0]
        self.requests.append(
            Request(call.now, call.method, call.path, request.query_string, call.body, reply.status, scheme)
        )
        self.counts[call.path, reply.status] += 1
        return await self._deliver(request, reply)

    def _refusal(self, call: Call) -> Reply | None:
        """Return why a request is not even looked at, if so: shut out, no credentials, too many requests."""
        failures = self._unauthorized.get(call.peer, deque())
        if len(failures) == BLOCKED_AFTER and failures[0] > call.now - HOUR:
            return _version(call).refuse(call, 429, "Too many unauthorized requests from this address")
        given = call.headers.get("Authorization", "")
        if given != self._bearer and not (given == self._basic and call.path.startswith(V6)):
            return v7.unauthorized(given)
        if not self._rate.admits(call.now):
            return _version(call).refuse(call, 429, "Exhausted rate limit for the organization")
        return None

    def _answer(self, call: Call, faults: list[Fault]) -> Reply:
        """Return what is to be said; runs in a thread."""
        aid = call.params.get("aid", str(self.world.groups[0].aid))
        for fault in faults:
            if fault.instead and (reply := fault.instead(call, aid == str(self.world.groups[-1].aid))):
                return reply
        try:
            route = _route(call)
            call = self._placed(call, route)
            payload = self._payload(call, route)
            for fault in faults:
                if fault.payload:
                    fault.payload(payload, call)
            return route.version.write(call, route.kind, payload)
        except RefusedError as error:
            return _version(call).refuse(call, error.status, error.detail)

    def _payload(self, call: Call, route: Route) -> Payload:
        group = self._group(call, route.version)
        if route.kind == "groups":
            return route.version.account_groups(call, self.world.groups)
        if route.kind == "agent":
            return self._one_agent(call, group)
        if route.kind == "agents":
            return self._agents(call, route.version, group)
        return self._sessions(call, route, group)

    def _group(self, call: Call, version: Version) -> AccountGroup:
        aid = call.params.get("aid", str(self.world.groups[0].aid))
        for group in self.world.groups:
            if str(group.aid) == aid:
                return group
        raise version.foreign_group(aid)

    def _placed(self, call: Call, route: Route) -> Call:
        """Return the same call with an explicit cursor, that of its first page if it has none."""
        cursor = route.version.CURSOR
        if route.kind == "agents":
            return replace(call, params={cursor: to_cursor([-1]), **call.params})
        if route.kind not in {"sessions", "networks"}:
            return call
        position = self._position(call, route)
        fixed = route.version.fixed_range(position)
        stale = {"window", route.version.START, route.version.END}
        params = {key: value for key, value in call.params.items() if key not in stale}
        return replace(call, params={**params, **fixed, cursor: position.cursor()})

    def _sessions(self, call: Call, route: Route, group: AccountGroup) -> Payload:
        """Return one page of a listing of sessions."""
        version = route.version
        filters = version.read_filters(call)
        position = Position.read(call.params[version.CURSOR])
        found = self._listed(route.kind, group.aid, position, filters)
        page = list(islice(found, self.page_size))
        beyond = next(found, None)
        following = call.link(**{version.CURSOR: _next(position, page, beyond).cursor()}) if beyond else None
        return version.sessions(route.kind, page, position, following)

    def _listed(self, kind: Kind, aid: int, position: Position, filters: Filters) -> Iterator[Session]:
        start = max(position.start, position.round_id)
        in_listing = (
            session
            for session in self.world.sessions(aid, start, position.end, position.now)
            if (session.listed if kind == "sessions" else session.measured) and matches(session, filters)
        )
        return islice(in_listing, position.skip, None)

    def _position(self, call: Call, route: Route) -> Position:
        """Return where a request wants to read: where its cursor says, or at the start of the range it asks for."""
        version = route.version
        if cursor := call.params.get(version.CURSOR):
            return Position.read(cursor)
        start, end, window = (call.params.get(name) for name in (version.START, version.END, "window"))
        if window and (start or end):
            raise RefusedError(400, f"window can not be used with {version.START} and {version.END}")
        if end and not start:
            raise RefusedError(400, f"{version.END} can not be used without {version.START}")
        if window:
            since, until = call.now - _seconds(window), call.now
        elif start:
            since, until = instant(start), instant(end) if end else call.now
        else:
            since, until = version.default_range(route.kind, call.now)
        since = max(since, call.now - RETENTION)
        return Position(since, until, call.now, asked=bool(window or start))

    def _agents(self, call: Call, version: Version, group: AccountGroup) -> Payload:
        """Return one page of agents; its cursor is the last agent of the page before."""
        mixed = call.params.get("useAllPermittedAids") == "true"
        found = [
            agent for agent in self.world.people if (mixed or agent.aid == group.aid) and self._wanted(call, agent)
        ]
        after = _number(call.params[version.CURSOR])
        size = call.params.get("max", str(self.page_size))
        if not re.fullmatch(r"[1-9]\d{0,5}", size):
            raise RefusedError(400, f"Invalid max: {size!r}")
        rest = [agent for agent in found if agent.number > after]
        page, beyond = rest[: int(size)], rest[int(size) :]
        following = call.link(**{version.CURSOR: to_cursor([page[-1].number])}) if beyond else None
        return version.agents(call, page, lambda agent: self._seen(agent, call.now), len(found), following)

    def _wanted(self, call: Call, agent: Agent) -> bool:
        if self.world.is_vanished(agent, call.now) and call.params.get("includeDeleted") != "true":
            return False
        names = (("agentName", agent.name), ("computerName", agent.computer_name))
        return all(call.params.get(parameter, name) == name for parameter, name in names)

    def _one_agent(self, call: Call, group: AccountGroup) -> Payload:
        for agent in self.world.agents_of(group.aid, call.now):
            if call.path.endswith(f"/{agent.id}"):
                return v7.agent(call, agent, lambda agent: self._seen(agent, call.now))
        raise RefusedError(404)

    def _seen(self, agent: Agent, now: float) -> tuple[int, bool]:
        return agent.last_seen(min(now, self.world.vanished.get(agent.id, now))), self.world.is_vanished(agent, now)

    def _finish(self, call: Call, reply: Reply, faults: list[Fault]) -> Reply:
        """Add what every reply carries, and what the faults make of it."""
        if reply.status == 401:
            self._unauthorized.setdefault(call.peer, deque(maxlen=BLOCKED_AFTER)).append(call.now)
        standard = {"Date": formatdate(call.now, usegmt=True), **self._rate.headers(call.now)}
        reply = replace(reply, headers={**standard, "Cache-Control": "no-store", **reply.headers})
        for fault in faults:
            if fault.reply:
                reply = fault.reply(reply)
        return reply

    async def _deliver(self, request: web.BaseRequest, reply: Reply) -> web.StreamResponse:
        """Send a reply as it asks to be sent."""
        if reply.delay and await self._stops_within(reply.delay):
            _break(request, abruptly=False)
            return web.Response(status=503)
        headers = CIMultiDict({key: value for key, value in reply.headers.items() if value is not None})
        body = reply.body
        if self._compresses(request, reply):
            body = await asyncio.to_thread(compressed, body)
            headers["Content-Encoding"] = "gzip"
        if reply.content_type:
            headers["Content-Type"] = reply.content_type
        response = _Response(status=reply.status, headers=headers)
        response.content_length = len(body)
        await response.prepare(request)
        if reply.cut:
            await response.write(body[: len(body) // 2] if reply.cut == "body" else b"")
            _break(request, abruptly=reply.cut == "headers")
            return response
        await response.write_eof(body)
        return response

    async def _stops_within(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), None if seconds == math.inf else seconds)
        return self._stopping.is_set()

    @staticmethod
    def _compresses(request: web.BaseRequest, reply: Reply) -> bool:
        accepts = "gzip" in request.headers.get("Accept-Encoding", "")
        return accepts and len(reply.body) > WORTH_COMPRESSING and "Content-Encoding" not in reply.headers


class _Response(web.StreamResponse):
    """A response that adds no header of its own accord, so that a reply without a date is one."""

    async def _prepare_headers(self) -> None:
        headers = self.headers.copy()
        await super()._prepare_headers()
        for name in set(self.headers) - set(headers) - {"Connection", "Transfer-Encoding"}:
            del self.headers[name]


def _version(call: Call) -> Version:
    return v6 if call.path.startswith(V6) else v7


def _route(call: Call) -> Route:
    path = re.sub(r"\.(json|xml)$", "", call.path) if call.path.startswith(V6) else call.path
    route = Route(v7, "agent", ("GET",)) if AGENT.fullmatch(path) else ROUTES.get(path)
    if not route:
        raise RefusedError(404)
    if call.method not in route.methods:
        raise RefusedError(405, "Method Not Allowed")
    return route


def _params(request: web.BaseRequest) -> Mapping[str, str]:
    """Return the parameters; what is named twice becomes one list with commas, which the API takes for the same."""
    return {key: ",".join(request.query.getall(key)) for key in request.query}


def _seconds(window: str) -> int:
    """Read a window such as `12h`; without a unit it is seconds."""
    match = re.fullmatch(r"(\d{1,12})([smhdw]?)", window)
    if not match:
        raise RefusedError(400, f"Invalid window: {window!r}")
    return int(match[1]) * UNITS[match[2]]


def _number(cursor: str) -> int:
    match from_cursor(cursor):
        case [int(number)]:
            return number
    raise RefusedError(400, "Failed to deserialize")


def _next(position: Position, page: list[Session], beyond: Session) -> Position:
    """Return where the page after this one begins: at the session beyond it."""
    skip = sum(session.round_id == beyond.round_id for session in page)
    if position.round_id == beyond.round_id:
        skip += position.skip
    return replace(position, round_id=beyond.round_id, skip=skip, page=position.page + 1)


def _break(request: web.BaseRequest, *, abruptly: bool) -> None:
    """End a connection amid an answer: with a reset, or as if the other end had hung up."""
    if abruptly:
        linger = struct.pack("ii", 1, 0)  # for no time: what closes is reset
        request.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    request.protocol.force_close()
