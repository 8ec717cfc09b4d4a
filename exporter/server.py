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
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
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
TURN = 0.005
"""Seconds for which one connection is served while others wait."""
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
    headers: list[tuple[bytes, bytes]]
    """Names in lower case."""
    keep_alive: bool
    """Whether the connection may serve another request; who answers can say no."""
    transport: asyncio.Transport

    def all(self, name: str) -> list[str]:
        """Return the values of a header; its name in lower case."""
        wanted = name.encode()
        return [value.decode("latin-1") for each, value in self.headers if each == wanted]

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


Answers = Callable[[Request], Answer | Awaitable[Answer]]
"""What answers a request: at once, wherever nothing has to be waited for."""


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
    """One connection: its requests are answered one after another.

    An answer that is known at once leaves within the call that brought the request: a task, and another round of the
    event loop for it, would take as long as all the rest.
    """

    def __init__(self, server: Server) -> None:
        self.deadline = asyncio.get_running_loop().time() + IDLE
        """By when, on the clock of the loop, there has to be a request, or an answer has to be taken."""
        self.busy = False
        """Whether a request is being answered."""
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._parser = HttpRequestParser(self)
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._head = 0
        self._waiting: deque[Request | Answer] = deque()
        self._heard = True
        """Whether what comes next is of interest."""
        self._stopped = False
        """Whether nothing is read for now."""
        self._full = False
        """Whether the network takes no more for now."""
        self._coming: asyncio.Task[Answer] | None = None
        """The answer that has to be waited for."""
        self._answer: Answer | None = None
        """The answer that is being sent."""
        self._body: Iterator[Sequence[bytes]] = iter(())
        self._left: list[memoryview] = []
        self._keep_alive = True
        self._transport: asyncio.Transport
        self._file: int | None = None
        """Descriptor to write to without detours; None over TLS."""

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
        """Forget what was still to be sent: nobody reads it."""
        self._server.closed(self)
        self._waiting.clear()
        self._sent()

    def pause_writing(self) -> None:
        """Note that the network takes no more."""
        self._full = True

    def resume_writing(self) -> None:
        """Go on where the network takes more."""
        self._full = False
        self._loop.call_soon(self._flow)  # not now: the transport is in the middle of its own business

    def data_received(self, data: bytes) -> None:
        """Take in a piece of a request, or several requests."""
        if not self._heard:
            self._stop()
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
        self._next()
        if self._waiting:
            self._stop()

    def eof_received(self) -> bool:
        """Note that nothing more will be asked; what was asked is still answered, but over TLS: it has no half end."""
        self._heard = False
        return self.busy and self._file is not None

    def _stop(self) -> None:
        self._stopped = True
        self._transport.pause_reading()

    # What the parser calls.

    def on_url(self, url: bytes) -> None:
        """Take in a piece of what is asked for."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take in a header."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """Put a request into the queue."""
        url, headers, size = self._url, self._headers, self._head
        self._url, self._headers, self._head = b"", [], 0
        if not self._heard:
            return
        if len(headers) > MAX_HEADERS or (
            size > MAX_HEAD and sum(map(len, [*map(b"".join, headers), url])) > MAX_HEAD  # it may be several requests
        ):
            raise _Refused(_TOO_LARGE)
        keep_alive = self._parser.should_keep_alive()
        hosts = []
        for name, value in headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding" or (name == b"content-length" and value != b"0"):
                keep_alive = False
            elif name == b"expect" and value.lower() != b"100-continue":
                raise _Refused(said(417, "nothing of the kind\n"))
        path = self._path(url.decode("latin-1"), hosts)
        self._heard = keep_alive
        self._waiting.append(
            Request(self._parser.get_method().decode("latin-1"), path, headers, keep_alive, self._transport)
        )

    def _path(self, target: str, hosts: list[bytes]) -> str:
        """Return the path of what is asked for."""
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1") or len(hosts) > 1 or (version == "1.1" and not hosts):
            raise _Refused(said(400, "HTTP/1.1 with one Host, please\n"))
        if not target.startswith("/"):
            absolute = _CUT.fullmatch(target)
            if not absolute or [absolute[1].lower()] != [host.decode("latin-1").lower() for host in hosts]:
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

    def _next(self) -> None:
        """Answer the next request, where there is one and nothing else is being answered."""
        if self.busy or not self._waiting or self._transport.is_closing():
            return
        self.busy = True
        asked = self._waiting.popleft()
        if isinstance(asked, Answer):
            self._keep_alive = False
            self._begin(asked)
            return
        until = self._loop.time() + TURN
        try:
            answer = self._server.answers(asked)
        except Exception as error:  # noqa: BLE001  a fault of this program costs one answer
            answer = _crashed(asked, error)
        if isinstance(answer, Answer) and self._loop.time() < until:
            self._begin(answer, asked)
        elif isinstance(answer, Answer):
            self._loop.call_soon(self._begin, answer, asked)
        else:
            self.deadline = math.inf
            self._coming = self._loop.create_task(_awaited(answer, asked))
            self._coming.add_done_callback(lambda done: self._came(done, asked))

    def _came(self, done: "asyncio.Task[Answer]", request: Request) -> None:
        """Begin to send an answer that was waited for, unless the end of everything came first."""
        if done.cancelled():
            self.abort()
        else:
            self._begin(done.result(), request)

    def _begin(self, answer: Answer, request: Request | None = None) -> None:
        """Begin to send an answer."""
        self._coming, self._answer = None, answer
        if self._transport.is_closing():
            self._sent()
            return
        self.deadline = self._loop.time() + WRITE_DEADLINE
        self._keep_alive = request is not None and request.keep_alive and not self._server.closing
        self._body = iter(()) if request and request.method == "HEAD" else iter(answer.body)
        head = _head(answer, {**answer.headers, **self._server.headers()}, keep_alive=self._keep_alive)
        self._left = [memoryview(each) for each in (head, *next(self._body, ()))]
        self._flow()

    def _flow(self) -> None:
        """Send bytes as they are, without a copy: what the network takes at once leaves at once.

        Who reads as fast as this is sent has some milliseconds; then others have their turn.
        """
        until = self._loop.time() + TURN
        try:
            while self._answer and not self._full and not self._transport.is_closing():
                if not self._left:
                    bunch = next(self._body, None)
                    if bunch is None:
                        self._sent()
                        return
                    self._left = [memoryview(each) for each in bunch]
                sent = self._at_once(self._left) if self._file is not None else 0
                self._left = _behind(self._left, sent)
                if self._left and not sent:  # the transport keeps what it can not send, and tells when it can
                    self._transport.write(self._left[0][:SLICE])
                    self._left = _behind(self._left, min(len(self._left[0]), SLICE))
                if self._loop.time() > until:
                    self._loop.call_soon(self._flow)
                    return
        except Exception as error:  # noqa: BLE001  a fault of this program costs one connection
            log.error("request_crashed", error=type(error).__name__, exc_info=True)
            self.abort()

    def _at_once(self, bunch: Sequence[memoryview]) -> int:
        """Write as much as the network takes now; return how much that is. Nothing may be waiting in the transport."""
        try:
            return os.writev(cast("int", self._file), bunch)
        except BlockingIOError:
            return 0
        except OSError:  # who asked has left
            self.abort()
            return 0

    def _sent(self) -> None:
        """End an answer that has left, or never will; go on with what was asked meanwhile."""
        answer, self._answer, self._left = self._answer, None, []
        if answer is None:
            return
        self.busy = False
        if answer.sent:
            answer.sent()
        self.deadline = self._loop.time() + IDLE
        self._server.idle(self)
        if not self._keep_alive or not (self._waiting or self._heard):
            self._transport.close()
        elif self._waiting:
            self._loop.call_soon(self._next)  # who sends many at once does not keep all others waiting
        elif self._stopped:
            self._stopped = False
            self._transport.resume_reading()


async def _awaited(answer: Awaitable[Answer], request: Request) -> Answer:
    try:
        return await answer
    except Exception as error:  # noqa: BLE001  a fault of this program costs one answer
        return _crashed(request, error)


def _crashed(request: Request, error: Exception) -> Answer:
    log.error("request_crashed", error=type(error).__name__, exc_info=True)
    request.keep_alive = False
    return said(500, "a fault of this program, please report it\n")


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
