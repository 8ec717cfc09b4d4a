"""Bytes that no scraper would send, to the real server over real sockets; what has to hold whatever they are."""

import asyncio
import logging
import re
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random

from servers import settings_for

from exporter.app import Exporter, answering

CANARY = b"canary9hT2xVq"
STATUSES = {200, 400, 401, 404, 405, 408, 411, 413, 414, 417, 429, 431, 501, 503, 505}
PATHS = (
    b"/metrics", b"/-/healthy", b"/-/ready", b"/", b"/metrics?name[]=x", b"//metrics", b"/%2e%2e/", b"*",
    b"http://a/metrics", b"http://[::1/", b"a:443", b"/" + b"y" * 9000, b"/\x00", b"/\xff", b"/<script>", CANARY, b"",
    b"/metrics HTTP/1.1\r\nA: b",
)  # fmt: skip
METHODS = (
    b"GET", b"HEAD", b"POST", b"PUT", b"TRACE", b"CONNECT", b"OPTIONS", b"PRI", b"get", b"FOO", b"", b"G\x00T",
    b"\r\nGET", b"M" * 9000,
)  # fmt: skip
VERSIONS = (
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 ", b"http/1.1", b"HTTP/11", b"HTTP/1.", b"",
    b"ICY/1.1",
)  # fmt: skip
FIELDS = (
    b"Host: localhost", b"Host: localhost", b"Host: a", b"Host:", b"Connection: close", b"Connection: keep-alive",
    b"Connection: upgrade", b"Upgrade: h2c", b"Upgrade: websocket", b"Accept-Encoding: gzip",
    b"Accept-Encoding: gzip;q=0, *;q=1e309", b"Accept: */*;q=NaN",
    b"Accept: application/openmetrics-text;version=1.0.0", b"Accept: " + b"a/b," * 2000, b"Content-Length: 0",
    b"Content-Length: 5", b"Content-Length: +5", b"Content-Length: 0x5", b"Content-Length: 99999999999999999999",
    b"Content-Length: -1", b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked, identity",
    b"Transfer-Encoding : chunked", b"Expect: 100-continue", b"Expect: foo", b"Cookie: =;=;=",
    b"Authorization: Basic " + b64encode(b"alice:" + CANARY),
    b"Authorization: Basic " + CANARY, b"Authorization: Bearer x", b" folded", b"\tfolded", b"No-Colon", b": empty",
    b"X: " + b"z" * 9000, b"X\x00: y", b"X: \x01\x02", b"X: \xff\xfe", b"Range: bytes=0-1", b"If-None-Match: *",
    b"X-Prometheus-Scrape-Timeout-Seconds: 1e309", b"Sec-WebSocket-Key: x", b"HTTP2-Settings: AAMAAABk",
    b"X: y\nZ: q", b"X: y\rZ: q", CANARY + b": x",
)  # fmt: skip
BODIES = (
    b"", b"", b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n", b"-1\r\n",
    b"0\r\nTrailer: x\r\n\r\n", b"0" * 5000,
)  # fmt: skip
ODD = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n" * 500,
    b"\x00" * 100, b"GET /\r\n", b"\n\n", b"GET /metrics HTTP/1.1\nHost: a\n\n", b"\xff" * 10000, CANARY,
)  # fmt: skip


def sent(rng: Random) -> bytes:
    """Write what somebody sends on one connection: some requests, good or bad."""
    data = b"".join(_request(rng) for _ in range(rng.choice((1, 1, 1, 2, 3, 20))))
    if rng.random() < 0.3:
        place = rng.randrange(len(data) + 1)
        data = (
            data[:place] + rng.choice((b"", rng.randbytes(rng.choice((1, 4, 100))))) + data[place + rng.randrange(5) :]
        )
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data


def _request(rng: Random) -> bytes:
    if rng.random() < 0.05:
        return rng.choice(ODD)
    line = b" ".join(rng.choice(words) if rng.random() < 0.3 else words[0] for words in (METHODS, PATHS, VERSIONS))
    fields = [rng.choice(FIELDS) for _ in range(rng.choice((0, 1, 2, 4, 150 if rng.random() < 0.1 else 3)))]
    fields += [FIELDS[0]] if rng.random() < 0.8 else []
    end = b"\r\n" if rng.random() < 0.97 else b"\n"
    return end.join([line, *fields, b"", b""]) + rng.choice(BODIES)


class _Lines(logging.Handler):
    """Keeps what is worse than a warning, and every word of a stranger."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        words = f"{record.getMessage()} {getattr(record, 'fields', '')} {record.exc_info or ''}"
        if record.levelno > logging.WARNING or record.exc_info or CANARY.decode() in words or len(words) > 300:
            self.wrong.append(words)


class Server:
    """A server that runs in a thread of its own, and nothing else but it."""

    def __init__(self, port: int, lines: _Lines, crashes: list[str]) -> None:
        self.port = port
        self._lines = lines
        self._crashes = crashes

    def say(self, *pieces: bytes) -> bytes:
        """Send bytes and hang up; return what comes back."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            answer = bytearray()
            try:
                for piece in pieces:
                    connection.sendall(piece)
                connection.shutdown(socket.SHUT_WR)
                while got := connection.recv(1 << 18):
                    answer += got
            except TimeoutError:
                raise AssertionError("a connection stays open that the other end has closed") from None
            except OSError:
                pass  # cut off: that is an answer, too
        return bytes(answer)

    def hold(self, *pieces: bytes) -> None:
        """Send bytes, and hold the answer and the server to the invariants."""
        answer = self.say(*pieces)
        if answer:
            status = re.match(rb"HTTP/1\.1 (\d{3}) [A-Z]", answer)
            assert status, answer[:100]
            assert int(status[1]) in STATUSES, answer[:100]
            assert CANARY not in answer
        self.check()

    def check(self) -> None:
        """Find what has been logged, or crashed in the event loop."""
        assert not self._lines.wrong, self._lines.wrong
        assert not self._crashes, self._crashes

    def good(self, status: int = 200) -> None:
        """Ask as Prometheus does."""
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            connection.sendall(request)
            answer = b"".join(iter(lambda: connection.recv(1 << 18), b""))
        assert answer.startswith(b"HTTP/1.1 %d " % status), answer[:200]
        assert (b"\nthousandeyes_exporter_build_info" in answer) == (status == 200)
        self.check()


@contextmanager
def serving(**changed: object) -> Iterator[Server]:
    """Serve in a thread for the length of the context; nothing is polled. `group__name` changes a setting."""
    lines, crashes, found = _Lines(), list[str](), list[Server]()
    ready, stop = threading.Event(), threading.Event()
    loggers = [logging.getLogger(name) for name in ("exporter", "asyncio", "aiohttp")]
    before = [(logger.propagate, logger.level) for logger in loggers]

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: crashes.append(str(context)))
        exporter = Exporter(settings_for("http://127.0.0.1:9", **changed))
        try:
            async with answering(exporter) as address:
                found.append(Server(int(address.rpartition(":")[2]), lines, crashes))
                ready.set()
                await asyncio.to_thread(stop.wait)
        finally:
            await exporter.close()

    for logger in loggers:
        logger.addHandler(lines)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert ready.wait(10), "it does not start"
        yield found[0]
        found[0].check()
    finally:
        stop.set()
        thread.join(20)
        for logger, (propagate, level) in zip(loggers, before, strict=True):
            logger.removeHandler(lines)
            logger.propagate = propagate
            logger.setLevel(level)
