"""Replies as no API should send them: examples and the simulator's pages, spoiled by a seeded generator.

What has to hold whatever comes stands in `fuzz.polls`.
"""

import asyncio
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from virtual import START, Instant, Patient

from exporter.api import VERSIONS
from exporter.api.http import Credentials, Http
from exporter.api.wire import Request
from exporter.simulator import Simulator, World, parse_faults
from exporter.simulator.faults import ODD
from exporter.telemetry import Telemetry

PAYLOADS = Path(__file__).parent.parent / "payloads"
AID = "1001"
NOW = int(START)
"""What the time is, Unix seconds: in the middle of a round."""
DATE = "Wed, 18 Nov 2026 14:32:30 GMT"
ROUND = NOW - NOW % 60 - 60
LISTS = ("userSessions", "networkSessions", "endpointAgents", "results", "agents", "accountGroups")
"""What versions call their lists; those of users, networks, agents and groups differ in what is in them."""
LINKS = ("pages", "_links")
SPOILED = ("bad_records", "odd_labels", "null_fields", "floats", "masked", "duplicate_records")
"""Faults of the simulator that spoil pages."""


def _literal(token: str) -> str:
    """Return what stands for a piece of JSON that `json` would not write."""
    return f"@@{token}@@"


_LITERAL = re.compile(r'"@@(.*?)@@"')
NUMBERS = (
    0, -1, 1, 101, -0.0, 0.5, 1.5, 100.0, 1e6, 1e7, 5e-324, 1.7e308, 2**53 + 1, 2**60, 2**63, 2**64, 10**30, 1e16,
    0.1 + 0.2, NOW, ROUND, ROUND + 60, ROUND + 3600, ROUND + 0.5, 253_402_300_740, -60, 65_536,
    *map(_literal, ("NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 5000, "0." + "1" * 400, "1E10",
                    "-0", "01", "1.", ".5", "+1", "0x10")),
)  # fmt: skip
TEXTS = (
    *ODD, "__name__", "__other__", "job", "le", "aid", "NaN", "150", "x" * 300, "x" * 299 + "y", "é", "e\u0301",
    "\ufeff", "\x00", "\r", "\r\n", "# EOF", 'a,b="c"} 1\n# TYPE x gauge', "{", "\\n", "\\", '"', " ", "\u3000", "A",
    "a", ":80", "[::1]:443", "host:", "host.", "HOST.EXAMPLE:80", "2026-02-30 24:00:00", "2026-11-18T14:32:00Z",
    "2026-11-18 14:32:00", "2026-11-18T14:32:00+25:00", "2026-11-18T14:32:60Z", "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "9999-12-31 23:59:59",
    "2026-11-18T14:32:00.123456789Z", "\ud800", "\udfff\ud800", "\U0010ffff",
)  # fmt: skip
OTHERS: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], [{}], {"": ""}, {"href": None}, {"href": 1}, {"next": {"href": "x"}}, [None] * 50,
)  # fmt: skip
ADDRESSES = (
    "", "/", "?", "#", "//", "cursor=1", "?cursor=", "?cursor=x&cursor=y", "http://", "?cursor=c", "\x00", "\ud800",
    "https://api.example.net{path}?cursor=a", "//api.example.net{path}?cursor=a", "{origin}{path};x=1?cursor=a",
    "http://user:password@{host}{path}?cursor=a", "{origin}{path}?cursor=a&aid=1002",
    "{origin}{path}?cursor=a&aid=1001", "{origin}/v7/credentials?cursor=a",
    "{origin}{path}?page=2&pageId=b&lastRoundId=3", "{origin}{path}.json?cursor=a",
    "{origin}{path}/../credentials?cursor=a", "{origin}{path}%2e%2e/?cursor=a", "{path}?cursor=%00%ff&evil=1",
    "https://[::1/", "http://[", "http://{host}9999{path}?cursor=a", "http://{host}x{path}",
    "{origin}{path}#fragment", "{origin}{path}?cursor=" + "y" * 5000, "file:///etc/passwd", "javascript:alert(1)",
    "\r\nHost: evil", "xn--a", "{origin}{path}\r\nX: y?cursor=1", "http://{host}.evil.example{path}?cursor=a",
    "http:{path}?cursor=q", "http://{host}@evil.example{path}?cursor=a", "{origin}\\@evil.example{path}?cursor=a",
    "http://\u2100.x{path}", "{origin}{path}?startDate=1970-01-01T00:00:00Z&cursor=z",
    "?" + "&".join(f"p{n}={n}" for n in range(2000)),
)  # fmt: skip
"""Where the next page is said to be."""
STATUSES = (100, 204, 206, 301, 302, 304, 400, 401, 403, 404, 405, 407, 418, 429, 429, 500, 502, 503, 504, 599, 999)
FAR = (
    "", "now", "Fri, 31 Dec 9999 23:59:59 GMT", "Fri, 31 Dec 9999 23:59:59 -1200", "Mon, 01 Jan 0001 00:00:00 +1200",
    "Mon, 01 Jan 0001 00:00:00 GMT", "Thu, 01 Jan 1970 00:00:00 GMT", "Wed, 18 Nov 2026 14:33:30 GMT",
    "Wed, 18 Nov 99999 00:00:00 GMT", "Wed, 18 Nov 2026 14:32:30 +9999", "Wed, 18 Nov 2026 25:61:61 GMT", "1, 2, 3",
)  # fmt: skip
HEADERS = {
    "Content-Type": (
        "", "text/html", "application/hal+json", "application/json; charset=utf-16", "json", ";;;", "a/b/c", "\x00",
    ),
    "Content-Length": ("0", "-1", "10000000000", "9" * 30, "abc", "1.5", ""),
    "Content-Encoding": ("gzip", "GZIP ", "br", "gzip, gzip", "identity", "deflate", "\x00", "x" * 5000),
    "Date": FAR,
    "Retry-After": ("0", "-5", "NaN", "inf", "1e309", "1000000000000", DATE, "soon", *FAR),
    "X-Organization-Rate-Limit-Limit": ("0", "240", "-1", "NaN", "inf", "1e308", "x"),
    "X-Organization-Rate-Limit-Remaining": ("0", "240", "-1", "NaN", "1e-320", "x"),
    "X-Organization-Rate-Limit-Reset": ("0", "1", f"{NOW + 30}", f"{NOW}000", "NaN", "-1", "1e308", "inf"),
}  # fmt: skip


@dataclass(slots=True)
class Reply:
    """What one request is answered."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@cache
def seeds(version: str) -> dict[str, list[Any]]:
    """Return pages by the path that they answer: the documentation's examples and those of the simulator."""
    api = VERSIONS[version]
    asked = (api.user_sessions(AID, NOW - 900, NOW, {}), api.network_sessions(AID, NOW - 900, NOW, {}), api.agents(AID),
             api.account_groups())  # fmt: skip
    pages: dict[str, list[Any]] = asyncio.run(_simulated(asked))
    examples = [json.loads(path.read_bytes()) for path in sorted((PAYLOADS / version).glob("*.json"))]
    for request, words in zip(asked, ("user", "network", "endpoint-agents", "account-groups"), strict=True):
        for path, example in zip(sorted((PAYLOADS / version).glob("*.json")), examples, strict=True):
            name = path.name
            if (words in name and "network" not in name) or (words == "network" and words in name):
                pages[request.path].append(example)
    return pages


async def _simulated(asked: tuple[Request, ...]) -> dict[str, list[Any]]:
    simulator = Simulator(World(agents=3, sites=3), page_size=2, clock=lambda: NOW, rate_limit=1_000_000)
    pages: dict[str, list[Any]] = {request.path: [] for request in asked}
    http = Http(await simulator.start(), lambda: Credentials("demo"), Telemetry(process=False), clock=Instant().clock,
                requests_per_minute=100_000)  # fmt: skip
    try:
        for faults in ((), *((fault,) for fault in SPOILED)):
            simulator.faults = parse_faults(faults)
            for request in asked:
                pages[request.path].append(json.loads((await http.fetch(request, Patient())).text()))
    finally:
        await http.close()
        await simulator.stop()
    return pages


class Spoiler:
    """Makes one reply after another of a seed; the same seed makes the same."""

    def __init__(self, rng: Random, version: str, origin: str) -> None:
        self._rng = rng
        self._seeds = seeds(version)
        self._origin = origin
        self._others = [page for pages in seeds("v7" if version == "v6" else "v6").values() for page in pages]
        self._number = 0

    def reply(self, path: str) -> Reply:
        """Answer a request."""
        chance = self._rng.random
        reply = Reply(self.body(path), headers={"Content-Type": "application/json", "Date": DATE})
        if chance() < 0.08:
            reply.body, reply.headers["Content-Encoding"] = gzip.compress(reply.body, 1), "gzip"
        if chance() < 0.08:
            name = self._rng.choice(list(HEADERS))
            reply.headers[name] = self._rng.choice(HEADERS[name])
        if chance() < 0.05:
            reply.status = self._rng.choice(STATUSES)
        if chance() < 0.12:
            reply.body = self.damaged(reply.body)
        return reply

    def body(self, path: str) -> bytes:
        """Write a page that answers a request, or should not."""
        rng = self._rng
        page = rng.choice(self._seeds[path] if rng.random() < 0.98 else self._others)
        page = self.linked(self._fresh(page), path)
        for _ in range(rng.choice((0, 0, 1, 1, 1, 2))):
            page = self.spoiled(page)
        text = json.dumps(page)
        return (_LITERAL.sub(r"\1", text) if "@@" in text else text).encode()

    def _fresh(self, page: Any) -> Any:
        """Give records of sessions ids and rounds of now, of which few are twice."""
        copy = dict(page)
        for name in copy.keys() & {"userSessions", "networkSessions", "results"}:
            copy[name] = [dict(record) for record in copy[name][: self._rng.choice((0, 1, 2, 2, 2))]]
            for record in copy[name]:
                self._number += 1
                record["userSessionId" if "userSessionId" in record else "id"] = f"s{self._number // 4}"
                if isinstance(record.get("roundId"), int):
                    record["roundId"] = ROUND - 60 * (self._number % 3)
        return copy

    def linked(self, page: Any, path: str) -> Any:
        """Say where the next page is, or that there is none."""
        rng, links = self._rng, next((name for name in LINKS if name in page), "_links")
        copy = {**page, links: {}}
        if rng.random() < 0.3:
            address = f"{self._origin}{path}?cursor={rng.random()}&page={rng.random()}&aid={AID}"
            if rng.random() < 0.3:
                address = rng.choice(addresses(self._origin, path))
            copy[links]["next"] = address if links == "pages" else {"href": address}
        return copy

    def spoiled(self, node: Any) -> Any:
        """Return a copy of a page in which one thing is different."""
        rng = self._rng
        if isinstance(node, dict) and node and rng.random() < (0.995 if node.keys() & set(LISTS) else 0.9):
            copy = dict(node)
            lists = [name for name in LISTS if isinstance(copy.get(name), list)]
            name = lists[0] if lists and rng.random() < 0.95 else rng.choice(list(copy))
            roll = rng.random() * (0.87 if lists else 1.0)
            if roll < 0.86:
                copy[name] = self.spoiled(copy[name])
            elif roll < 0.91:
                del copy[name]
            elif roll < 0.96:
                copy[name] = copy[rng.choice(list(copy))]
            else:
                copy[self._text() if rng.random() < 0.5 else name.upper()] = copy[name]
            return copy
        if isinstance(node, list) and rng.random() < (0.98 if node else 0.5):
            if not node:
                return node
            items, place = list(node), rng.randrange(len(node))
            roll = rng.random()
            if roll < 0.85:
                items[place] = self.spoiled(items[place])
            elif roll < 0.9:
                del items[place]
            else:
                items += [items[place]] * rng.choice((1, 1, 2, 20))
            return items
        return self._odd(node)

    def _odd(self, node: Any) -> Any:
        rng, roll = self._rng, self._rng.random()
        if roll < 0.1:
            return rng.choice(OTHERS)
        if roll < 0.11:
            return _literal("[" * (depth := rng.choice((10, 1000, 20_000))) + "]" * depth)
        if isinstance(node, (int, float)) == (roll < 0.85):
            number: Any = rng.choice(NUMBERS)
            return number if rng.random() < 0.7 or isinstance(number, str) else number * rng.random()
        return self._text()

    def _text(self) -> str:
        text = self._rng.choice(TEXTS)
        return text if self._rng.random() < 0.7 else text[: self._rng.randrange(40)] + self._rng.choice(TEXTS)[:40]

    def damaged(self, body: bytes) -> bytes:
        """Return bytes of which some are wrong."""
        rng, data = self._rng, bytearray(body)
        for _ in range(rng.choice((1, 1, 2, 5))):
            place, other = sorted((rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)))
            match rng.randrange(7):
                case 0:
                    data[place : place + 1] = rng.randbytes(1)
                case 1:
                    del data[place:other]
                case 2:
                    data[place:place] = rng.choice(
                        (b"\x00", b"\xff", b"\xef\xbb\xbf", b'"', b"{", b"]", b",", b"\\u", b"1e")
                    )
                case 3:
                    del data[place:]
                case 4:
                    data[place:place] = data[place : min(other, place + 200)]
                case 5:
                    data[place : place + 1] = (
                        bytes([data[place] ^ 1 << rng.randrange(8)]) if place < len(data) else b"\n"
                    )
                case _:
                    data = bytearray(
                        bytes(data).decode("utf-8", "replace").encode("utf-16" if rng.random() < 0.1 else "utf-8")
                    )
        return bytes(data)


@cache
def addresses(origin: str, path: str) -> list[str]:
    """Return where the next page of a listing may be said to be."""
    host = origin.partition("//")[2]
    return [each.replace("{origin}", origin).replace("{host}", host).replace("{path}", path) for each in ADDRESSES]


def leading_to(version: str, path: str, address: str) -> Reply:
    """Answer with an empty page, and the next one there."""
    api = VERSIONS[version]
    names: dict[str, Any] = {shape.results: [] for shape in (api.USERS, api.NETWORKS, api.AGENTS, api.ACCOUNT_GROUPS)}
    links = {"pages": {"next": address}} if version == "v6" else {"_links": {"next": {"href": address}}}
    return Reply(json.dumps({**names, **links}).encode(), headers={"Content-Type": "application/json", "Date": DATE})


def bodies(version: str) -> Iterator[tuple[str, bytes]]:
    """Yield the seeds: path and bytes."""
    for path, pages in seeds(version).items():
        yield from ((path, json.dumps(page).encode()) for page in pages)
