"""Replies that are hardly HTTP, byte by byte over a real connection, and what has to hold of the client."""

# ruff: noqa: S311 - what goes wrong is not a secret

import gzip
from random import Random

import raw
from virtual import Instant, Patient

from exporter.api.http import Credentials, Http
from exporter.api.wire import Request
from exporter.errors import PollError
from exporter.telemetry import Telemetry
from fuzz.polls import TOKEN, checked
from fuzz.replies import DATE, HEADERS, STATUSES

BODY = b'{"results": [], "_links": {}}'
LINES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.0 200", b"HTTP/1.1  200 OK", b"HTTP/2 200", b"ICY 200 OK", b"HTTP/1.1 OK",
    b"HTTP/1.1 99999 X", b"HTTP/1.1 200 " + b"x" * 70_000, b"HTTP/1.1 -1 X", b"HTTP/1.1 2O0 OK", b"", b"\x00",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK", b"HTTP/1.1 204 No Content",
)  # fmt: skip
FIELDS = (
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Content-Length: 5",
    b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: +5", b"Set-Cookie: a=b; Domain=example.com",
    b"Location: http://127.0.0.1:1/", b" folded", b"X", b": x", b"X: " + b"y" * 70_000, b"X: \x00", b"\xff: \xff",
    b"Connection: close", b"Connection: upgrade\r\nUpgrade: websocket", b"Trailer: X", b"Content-Encoding: gzip",
)  # fmt: skip
CHUNKS = (
    b"5\r\nhello\r\n0\r\n\r\n", b"5\r\nhello\r\n", b"zz\r\nhello\r\n0\r\n\r\n", b"-1\r\n", b"ffffffffffffffff1\r\n",
    b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n", b"1d\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"1d;x=y\r\n" + BODY + b"\r\n0\r\n\r\n", b"",
)  # fmt: skip


def reply(rng: Random) -> bytes:
    """Write one answer, good or bad."""
    body = rng.choice((BODY, BODY, b"", gzip.compress(BODY), *CHUNKS))
    line = LINES[0] if rng.random() < 0.6 else rng.choice(LINES)
    if rng.random() < 0.2:
        line = f"HTTP/1.1 {rng.choice(STATUSES)} Whatever".encode()
    fields = [b"Content-Type: application/json", f"Date: {DATE}".encode()]
    fields += [b"Content-Length: %d" % len(body)] if rng.random() < 0.7 else []
    fields += [rng.choice(FIELDS) for _ in range(rng.choice((0, 0, 1, 2)))]
    name = rng.choice(list(HEADERS))
    fields += [f"{name}: {rng.choice(HEADERS[name])}".encode("latin-1")] if rng.random() < 0.3 else []
    fields += [b"X-%d: y" % number for number in range(300)] if rng.random() < 0.03 else []
    data = b"\r\n".join([line, *fields, b"", b""]) + body
    if rng.random() < 0.3:
        place = rng.randrange(len(data) + 1)
        data = data[:place] + rng.randbytes(rng.choice((0, 1, 4))) + data[place + rng.randrange(5) :]
    if rng.random() < 0.1:
        data += data
    return data[: rng.randrange(len(data) + 1)] if rng.random() < 0.1 else data


async def fetched(seed: str, count: int) -> dict[str, int]:
    """Ask so many times; return how it ended. Whoever answers hangs up, and nobody else is asked."""
    rng, ends = Random(seed), dict[str, int]()
    written: list[bytes] = []

    async def says(call: raw.Call) -> None:
        written.append(reply(rng))
        await call.say(written[-1])
        call.close()

    async with raw.serving(says) as api:
        http = Http(
            api.url, lambda: Credentials(TOKEN), Telemetry(process=False), timeout=1.0, requests_per_minute=1_000_000,
            clock=(virtual := Instant()).clock,
        )  # fmt: skip
        try:
            for _ in range(count):
                virtual.now += 61
                try:
                    (await http.fetch(Request("GET", "/v7/x", {"aid": "1"}), Patient())).text()
                    end = "200"
                except PollError as error:
                    end = checked(error)
                except Exception as error:
                    raise AssertionError(f"seed {seed}: {written[-1][:2000]!r}") from error
                ends[end] = ends.get(end, 0) + 1
        finally:
            await http.close()
        assert set(api.targets) == {"GET /v7/x?aid=1"}
    return ends
