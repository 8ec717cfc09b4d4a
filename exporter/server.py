"""HTTP/1.1 for scrapers: who is connected, what they ask, and bytes out as fast as they are taken.

What is answered is left to `exporter.web`, who may ask to `exporter.guard`. A request has no body here: who sends one
is answered, and not listened to any longer. Nothing that a stranger sends is logged.
"""

import asyncio
import math
import os
import re
import ssl
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus
from typing import cast

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from exporter import NAME, log

Body = Iterable[Sequence[bytes]]
"""What is sent: bunches of bytes, each made when the one before it has left."""

SLICE = 128 * 1024
"""Bytes that wait here while the network takes no more: a slow reader holds no copy of a body, only a place in it."""
WRITE_DEADLINE = 30.0
"""Seconds in which an answer has to be taken."""
IDLE = 9.0
"""Seconds after which a connection is closed that has not sent a request, or not all of it."""
HANDSHAKE = 9.0
"""Seconds in which a TLS handshake has to end."""
BACKLOG = 1024
"""Connections that may wait to be accepted; of more the first packet is lost, and comes again a second later."""
SWEEP = 1.0
"""Seconds between two looks at who has to go."""
MAX_HEAD = 8190
"""Bytes of a request line with its headers."""
MAX_HEADERS = 100
_CUT = re.compile(r"https?://([^/?#]*)(/[^#]*)?", re.IGNORECASE)


@dataclass(slots=True)
class Request:
    """One request: its line and headers, and the connection that it came on."""

    method: str
    path: str
    """Without the query, as it was sent: nothing is decoded."""
    headers: list[tuple[str, str]]
    """Names in lower case."""
    keep_alive: bool
    """Whether the connection may serve another request; who answers can say no."""
    transport: asyncio.Transport

    def all(self, name: str) -> list[str]:
        """Return the values of a header; its name in lower case."""
        return [value for each, value in self.headers if each == name]

    @property
    def remote(self) -> str:
        """The address of who asks; empty where it is not known."""
        peer = self.transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is to be sent."""

    status: int
    headers: Mapping[str, str]
    length: int
    """Bytes of the body."""
    body: Body
    sent: Callable[[], None] | None = None
    """Called once the answer has left, or never will."""


def said(status: int, text: str, content_type: str = "text/plain; charset=utf-8", **headers: str) -> Answer:
    """Return an answer of one text; `Retry_After` is the header `Retry-After`."""
    data = text.encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"Content-Type": content_type, **named}, len(data), [[data]])


Answers = Callable[[Request], Awaitable[Answer]]


class Server:
    """All connections of one address."""

    def __init__(
        self, answers: Answers, headers: Callable[[], Mapping[str, str]] = dict, max_connections: int = 1000
    ) -> None:
        """Make a server that listens nowhere yet; `headers` are sent with every answer.

        Of `max_connections` a quarter is for those that come all at once: only then is room made for them.
        """
        self.answers = answers
        self.headers = headers
        self.closing = False
        self._backlog = min(BACKLOG, -(-max_connections // 4))
        self._most = max_connections - self._backlog
        self._open: dict[Connection, None] = {}
        """Who has been idle for the longest comes first."""
        self._left = asyncio.Event()
        self._listener: asyncio.Server | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    def opened(self, connection: "Connection") -> bool:
        """Make room for a connection, at the cost of who was idle for the longest; False where all are busy."""
        if len(self._open) >= self._most:
            idle = next((each for each in self._open if not each.busy), None)
            log.warn("connections_at_limit", limit=self._most, hint="idle ones are closed: raise the limit of files")
            if idle is None:
                return False
            idle.abort()
            del self._open[idle]
        self._open[connection] = None
        if not self._sweeper:
            self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)
        return True

    def idle(self, connection: "Connection") -> None:
        """Note that a connection was of use."""
        if connection in self._open:
            del self._open[connection]
            self._open[connection] = None

    def closed(self, connection: "Connection") -> None:
        """Forget a connection."""
        self._open.pop(connection, None)
        self._left.set()

    async def listen(self, host: str | None, port: int, tls: ssl.SSLContext | None = None) -> tuple[str, int]:
        """Listen; return address and port, those of IPv4 where there is one of each.

        Raises:
            OSError: where that is not possible.
        """
        self._listener = await asyncio.get_running_loop().create_server(
            lambda: Connection(self),
            host,
            port,
            ssl=tls,
            ssl_handshake_timeout=HANDSHAKE if tls else None,
            backlog=self._backlog,
        )
        found: tuple[str, int] = min((each.getsockname() for each in self._listener.sockets), key=len)[:2]
        return found

    async def close(self, grace: float) -> None:
        """Let every answer end that is being sent, for so many seconds; nothing else is answered from now on."""
        self.closing = True
        if self._listener:
            self._listener.close()
        for connection in list(self._open):
            if not connection.busy:
                connection.abort()
        try:
            async with asyncio.timeout(grace):
                while self._open:
                    self._left.clear()
                    await self._left.wait()
        except TimeoutError:
            for connection in list(self._open):
                connection.abort()
        if self._sweeper:
            self._sweeper.cancel()

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        for connection in [each for each in self._open if each.deadline <= loop.time()]:
            connection.abort()
        self._sweeper = loop.call_later(SWEEP, self._sweep) if self._open else None


class Connection(asyncio.Protocol):
    """One connection: its requests are answered one after another."""

    def __init__(self, server: Server) -> None:
        self.deadline = asyncio.get_running_loop().time() + IDLE
        """By when, on the clock of the loop, there has to be a request, or an answer has to be taken."""
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head = 0
        self._waiting: deque[Request | Answer] = deque()
        self._heard = True
        """Whether what comes next is of interest."""
        self._paused = False
        self._task: asyncio.Task[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._transport: asyncio.Transport
        self._file: int | None = None
        """Descriptor to write to without detours; None over TLS."""

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._task is not None

    def abort(self) -> None:
        """Close the connection, whatever it is doing."""
        self._transport.abort()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to listen to somebody."""
        self._transport = cast("asyncio.Transport", transport)
        tls = transport.get_extra_info("ssl_object")
        self._transport.set_write_buffer_limits(1 if tls else 0)  # over TLS, 0 would count as full for ever
        self._file = None if tls else transport.get_extra_info("socket").fileno()
        if self._server.closing or not self._server.opened(self):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake who still writes: nobody reads it."""
        self._server.closed(self)
        self.resume_writing()

    def pause_writing(self) -> None:
        """Note that the network takes no more."""
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        """Go on where the network takes more."""
        if self._drained and not self._drained.done():
            self._drained.set_result(None)
        self._drained = None

    def data_received(self, data: bytes) -> None:
        """Take in a piece of a request, or several requests."""
        if not self._heard:
            self._pause()
            return
        self._head += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:
            self._heard = False  # answered as if nothing else had been proposed
        except HttpParserCallbackError as error:
            self._refuse(cast("_Refused", error.__context__).answer)
        except HttpParserError:
            self._refuse(_NO_HTTP)
        if self._head > MAX_HEAD:
            self._refuse(_TOO_LARGE)
        if self._waiting and not self._task:
            self._task = self._loop.create_task(self._converse())
        elif self._waiting:
            self._pause()

    def eof_received(self) -> bool:
        """Note that nothing more will be asked; what was asked is still answered, but over TLS: it has no half end."""
        self._heard = False
        return self.busy and self._file is not None

    def _pause(self) -> None:
        self._paused = True
        self._transport.pause_reading()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url, self._headers = b"", []

    def on_url(self, url: bytes) -> None:
        """Take in a piece of what is asked for."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Put a request into the queue."""
        if not self._heard:
            return
        self._head = 0
        headers = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in self._headers]
        if len(headers) > MAX_HEADERS or sum(map(len, [*map(b"".join, self._headers), self._url])) > MAX_HEAD:
            raise _Refused(_TOO_LARGE)
        keep_alive = self._parser.should_keep_alive()
        names = [name for name, _ in headers]
        if "transfer-encoding" in names or ("content-length" in names and ("content-length", "0") not in headers):
            keep_alive = False
        if any(name == "expect" and value.lower() != "100-continue" for name, value in headers):
            raise _Refused(said(417, "nothing of the kind\n"))
        method = self._parser.get_method().decode("latin-1")
        target = self._target(self._url.decode("latin-1"), [value for name, value in headers if name == "host"])
        self._heard = keep_alive
        self._waiting.append(Request(method, target, headers, keep_alive, self._transport))

    def _target(self, target: str, hosts: list[str]) -> str:
        """Return the path of what is asked for."""
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1") or len(hosts) > 1 or (version == "1.1" and not hosts):
            raise _Refused(said(400, "HTTP/1.1 with one Host, please\n"))
        if not target.startswith("/"):
            absolute = _CUT.fullmatch(target)
            if not absolute or [absolute[1].lower()] != [host.lower() for host in hosts]:
                raise _Refused(said(400, "this is the place of no other host\n"))
            target = absolute[2] or "/"
        return target.partition("?")[0]

    def _refuse(self, answer: Answer) -> None:
        """Say what is wrong, behind the answers to what was right; and listen no longer."""
        if not self._heard:
            return
        log.warn("request_not_understood", status=answer.status)
        self._heard = False
        self._waiting.append(answer)

    # Answers.

    async def _converse(self) -> None:
        """Answer all requests that are there."""
        try:
            keep_alive = True
            while self._waiting and keep_alive and not self._transport.is_closing():
                asked = self._waiting.popleft()
                keep_alive = await self._answer(asked)
                if self._waiting:
                    await asyncio.sleep(0)  # who sends many at once does not keep all others waiting
            if not (keep_alive and self._heard):
                self._transport.close()
        except Exception as error:  # noqa: BLE001  a fault of this program costs one connection
            log.error("request_crashed", error=type(error).__name__, exc_info=True)
            self.abort()
        finally:
            self._task = None
            self.deadline = self._loop.time() + IDLE
            self._server.idle(self)
            if self._paused and self._heard:
                self._paused = False
                self._transport.resume_reading()

    async def _answer(self, asked: Request | Answer) -> bool:
        """Answer one request; return whether there may be another one."""
        answer = asked if isinstance(asked, Answer) else await self._asked(asked)
        keep_alive = isinstance(asked, Request) and asked.keep_alive and not self._server.closing
        only_head = isinstance(asked, Request) and asked.method == "HEAD"
        self.deadline = self._loop.time() + WRITE_DEADLINE
        try:
            head = _head(answer, {**answer.headers, **self._server.headers()}, keep_alive=keep_alive)
            await self._write([head]) if only_head else await self._send(head, answer.body)
        finally:
            if answer.sent:
                answer.sent()
        return keep_alive

    async def _asked(self, request: Request) -> Answer:
        self.deadline = math.inf
        try:
            return await self._server.answers(request)
        except Exception as error:  # noqa: BLE001  a fault of this program costs one answer
            log.error("request_crashed", error=type(error).__name__, exc_info=True)
            request.keep_alive = False
            return said(500, "a fault of this program, please report it\n")

    async def _send(self, head: bytes, body: Body) -> None:
        """Write all of an answer, the head with the first bunch."""
        for bunch in body:
            if self._transport.is_closing():
                return
            await self._write([head, *bunch] if head else bunch)
            head = b""

    async def _write(self, bunch: Sequence[bytes]) -> None:
        """Write bytes as they are, without a copy: what the network takes at once leaves at once."""
        left: list[memoryview] = [memoryview(each) for each in bunch if each]
        while left and not self._transport.is_closing():
            if self._file is not None:
                left = _behind(left, self._at_once(left))
            if left:  # what the transport can not send it keeps, and tells when the network takes more
                self._transport.write(left[0][:SLICE])
                left = _behind(left, min(len(left[0]), SLICE))
                if self._drained:
                    await self._drained

    def _at_once(self, bunch: Sequence[memoryview]) -> int:
        """Write as much as the network takes now; return how much that is. Nothing may be waiting in the transport."""
        try:
            return os.writev(cast("int", self._file), bunch)
        except BlockingIOError:
            return 0
        except OSError:  # who asked has left
            self.abort()
            return 0


def _behind(bunch: list[memoryview], sent: int) -> list[memoryview]:
    """Return what is left behind the bytes that were sent."""
    for number, each in enumerate(bunch):
        if sent < len(each):
            return [each[sent:], *bunch[number + 1 :]]
        sent -= len(each)
    return []


def _head(answer: Answer, headers: Mapping[str, str], *, keep_alive: bool) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    connection = "keep-alive" if keep_alive else "close"
    return (
        f"HTTP/1.1 {answer.status} {_PHRASES[answer.status]}\r\nServer: {NAME}\r\nDate: {_date(int(time.time()))}\r\n"
        f"Connection: {connection}\r\nContent-Length: {answer.length}\r\nX-Content-Type-Options: nosniff\r\n{lines}\r\n"
    ).encode("latin-1")


@lru_cache(1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)


_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_NO_HTTP = said(400, "this is no HTTP/1.1\n")
_TOO_LARGE = said(431, f"more than {MAX_HEAD} bytes or {MAX_HEADERS} headers\n")


class _Refused(Exception):
    """A request that is HTTP, and yet nothing that is answered here."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__()
