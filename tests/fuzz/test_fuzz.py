"""Fuzzing: what holds for any response of the API, any request of a scraper, and any file.

The tests run a few cases, always the same. `make fuzz` runs other cases, each test for a while.
"""

import asyncio
import json
import os
import re
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from api_records import PAYLOADS, id_field, record, results_key
from factories import parse, text_of
from fake_clock import fake_time
from structlog.testing import capture_logs
from web_server import connection, get, serve

from exporter.app import Exporter
from exporter.clock import Clock
from exporter.errors import SettingsError
from exporter.metrics.exposition import Format
from exporter.settings import load as load_settings
from exporter.sources.sessions import SERIES
from exporter.thousandeyes.api import VERSIONS, Api
from exporter.thousandeyes.schema import Listing, Page, decode
from exporter.web.auth import Authenticator
from exporter.web.config import load as load_web_config

CANARY = "canary9hT2xVq"


def fuzz(count: int, case: Callable[[Random], Any]) -> None:
    """Run a case with `count` seeds, or more for `FUZZ_SECONDS`; a failure has its seed."""
    seconds, number = float(os.environ.get("FUZZ_SECONDS", "0")), 0
    run, end = secrets.token_hex(4) if seconds else "0", time.monotonic() + seconds
    while number < count or time.monotonic() < end:
        seed = os.environ.get("FUZZ_SEED", f"{run}/{number}")
        number += 1
        try:
            case(Random(seed))  # noqa: S311
        except Exception as error:
            error.add_note(f"repeat with FUZZ_SEED={seed}")
            raise


LITERAL = re.compile(r'"@@(.*?)@@"')  # a string that stands for JSON that `json` cannot write
NUMBERS = (
    *(0, -1, 101, -0.0, 1.5, 1e6, 5e-324, 1.7e308, 2**53 + 1, 2**60, 2**64, -60, 253_402_300_740),
    *(float("nan"), float("-inf"), "@@1e999@@", f"@@{'9' * 5000}@@", "@@1E10@@", "@@01@@"),
)
TEXTS = (
    'quo"ted.example.com', "back\\slash.example.com", "new\nline.example.com",
    "nul\x00 bell\x07 escape\x1b[31m.example.com", "snow☃man 🦔.example.com",
    "right\u202eto\u202cleft zero\u200bwidth line\u2028separator.example.com",
    "{le=\"0.1\",job='x'} 1 # EOF", "", "x" * 100_000 + ".example.com",
    "__name__", "__other__", "NaN", "150", "x" * 300, "x" * 299 + "y", "A", "a", "é",
    "e\u0301", "\ufeff", "# EOF", 'a",b="c"} 1\n# TYPE x gauge', "\\n", "\u3000", "[::1]:443",
    "HOST.example:80", "host.", "2026-02-30 24:00:00", "0001-01-01T00:00:00+23:59",
)  # fmt: skip
OTHERS = (
    *(None, True, [], {}, [[]], {"": ""}, {"href": None}, {"href": 1}, [None] * 50, "\ud800"),
    *("@@" + "[" * depth + "]" * depth + "@@" for depth in (10, 100_000)),
)


def mutate(rng: Random, node: Any) -> Any:
    """Return a copy of a JSON document with one change at a random place."""
    if not isinstance(node, dict | list) or not node or rng.random() < 0.05:
        alike = NUMBERS if isinstance(node, int | float) else TEXTS
        return rng.choice(rng.choice((alike, alike, NUMBERS, TEXTS, OTHERS)))
    copy = node.copy()
    key = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    match rng.randrange(16):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            copy[rng.choice(TEXTS)] = copy.pop(key)
        case 1 if isinstance(copy, list):
            copy *= rng.choice((2, 20))
        case _:
            copy[key] = mutate(rng, copy[key])
    return copy


def damage(rng: Random, data: bytes, words: Sequence[bytes]) -> bytes:
    """Return a copy with a few pieces removed, repeated, or replaced by words or random bytes."""
    for _ in range(rng.choice((1, 1, 2, 5))):
        position = rng.randrange(len(data) + 1)
        start = rng.choice((position, data.rfind(b"\n", 0, position) + 1))
        end = start + rng.choice((0, 0, 1, 4, 40, 10_000))
        old, word = data[start:end], rng.choice(words)
        new = rng.choice((word, word, b"", old * 2, old.swapcase(), rng.randbytes(2)))
        data = data[:start] + new + data[end:]
    return data


TEXT_FIELDS = ("agentId", "visitedSite", "protocol", "date", "committed", "name", "agentName")
JSON_WORDS = b'\x00 \xff \xef\xbb\xbf " { } ] [ , : \\u 1e null, "id":'.split(b" ")


@cache
def recorded(version: str, key: str) -> list[Any]:
    """Return the records under a key of recorded pages, and two with all fields."""
    pages = [json.loads(path.read_bytes()) for path in sorted(PAYLOADS.glob(f"{version}/*.json"))]
    whole = [record(version, "users"), record(version, "networks")]
    return [*whole, *(each for page in pages for each in page.get(key, []))]


class MutatedApi(Api):
    """Reads pages of recorded records, some of them mutated."""

    def __init__(self, rng: Random, now: Callable[[], float], version: str) -> None:
        super().__init__(self, version)  # type: ignore[arg-type]  # it has `pages`
        self.rng, self.now, self.version = rng, now, version

    async def pages(self, _request: Any, listing: Listing[Any], _: Any) -> AsyncIterator[Page[Any]]:
        body = self._body(listing)
        page = decode(body, listing)
        found, rejected = len(page.records), page.rejected.total()
        try:
            records = json.loads(body.decode("utf-8-sig"), parse_int=float)[results_key(listing)]
        except RecursionError:  # in unknown fields, which msgspec does not decode
            records = range(found + rejected)
        optional = page.rejected["bad_time"]  # an invalid optional time does not reject its record
        assert found + rejected - optional <= len(records) <= found + rejected
        yield page

    def _body(self, listing: Listing[Any]) -> bytes:
        rng, id_ = self.rng, id_field(self.version)
        records = rng.choices(
            recorded(self.version, results_key(listing)), k=rng.choice((1, 4, 16))
        )
        for number, each in enumerate(records):
            records[number] = each | {rng.choice(TEXT_FIELDS): rng.choice(TEXTS)}
            if "roundId" in each:  # one of few sessions, of a recent round
                start = self.now() // 60 * 60 - 60 * rng.randrange(3)
                records[number] |= {id_: f"{rng.randrange(60)}", "roundId": start}
        records = [mutate(rng, each) if rng.random() < 0.3 else each for each in records]
        page = {
            results_key(listing): records,
            "_links": {"next": {"href": None}},
            "pages": {"next": ""},
        }
        page = mutate(rng, page) if rng.random() < 0.1 else page
        body = LITERAL.sub(r"\1", json.dumps(page)).encode()
        return damage(rng, body, JSON_WORDS) if rng.random() < 0.1 else body


async def poll_and_scrape(rng: Random) -> None:
    now, version = 1_700_000_070.0, rng.choice(list(VERSIONS))
    max_series = rng.choice((40, 400, 100_000))
    flags = (
        f"--api.token=x --api.version={version} --api.account-groups={rng.choice(('all', '11'))} "
        f"--metrics.max-series={max_series} --filter.exclude-sites={rng.choice(('x', '.*com'))}"
    )
    exporter = Exporter(
        load_settings(flags.split(), {}).settings,
        clock=Clock(lambda: now, lambda: now),
        process=False,
        api_type=lambda *_: MutatedApi(rng, lambda: now, version),  # type: ignore[arg-type]
    )
    for _ in range(8):
        await exporter.manager.update()
        pollers = exporter.manager.pollers
        await asyncio.gather(*(poller.poll() for poller in pollers))
        failures = [exporter.manager.failure, *(poller.failure for poller in pollers)]
        assert {each.reason for each in failures if each} <= {"json", "schema"}
        assert all(str(each).isprintable() and len(str(each)) < 600 for each in failures)
        await exporter.publisher.publish()
        now += 60
    snapshot, metrics = exporter.snapshot, exporter.metrics
    text, openmetrics = (
        parse(text_of(snapshot.common, snapshot.tails[each]) + metrics.render(each), each)
        for each in Format
    )
    assert text == openmetrics
    names = {family.name for family in SERIES.families}
    assert sum(name in names for name, _ in text) == exporter.publisher.current.series <= max_series
    await exporter.close()


def test_any_response_is_read_or_rejected_and_the_exposition_is_valid() -> None:
    fuzz(12, lambda rng: asyncio.run(poll_and_scrape(rng)))


REQUESTS = (
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*;q=0.5\r\nAccept-Encoding: gzip\r\n\r\n",
    b"HEAD /?a=b HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\nCookie: a=b\r\n\r\n",
    b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET http://x/-/ready HTTP/1.0\r\nHost: x\r\n\r\n",
)
HTTP_WORDS = (
    f"{CANARY}|X: {CANARY}\r\n|Authorization: Basic {CANARY}\r\n|X: {'z' * 9000}\r\n|Host: y\r\n|"
    f"Content-Length: 5\r\n|Content-Length: +5\r\n|Content-Length: {'9' * 20}\r\n|{'f' * 20}\r\n|"
    "Transfer-Encoding: chunked\r\n|Transfer-Encoding : chunked, identity\r\n|Upgrade: h2c\r\n|"
    "Expect: 100-continue\r\n|Expect: x\r\n| folded\r\n|: x\r\n|-1\r\n|\r\n|\n|\r|\0|\xff| |:|*|"
    "CONNECT|HTTP/0.9|http://[::1/|//|%00|PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n|" + "X: y\r\n" * 200
)


def test_any_request_leaves_the_server_responsive(tmp_path: Path, caplog: Any) -> None:
    path, words = tmp_path / "web.yml", HTTP_WORDS.encode("latin-1").split(b"|")
    path.write_text(FILES[0][1])

    async def send(rng: Random) -> None:
        auth, count = rng.choice((None, Authenticator(path, Clock()))), rng.choice((1, 2, 20))
        requests = [damage(rng, each, words) for each in rng.choices(REQUESTS, k=count)]
        with capture_logs() as logs:
            async with serve(auth=auth) as url, asyncio.timeout(40.0):
                async with connection(url) as (reader, writer):
                    writer.write(b"".join(requests))
                    reply = await reader.read()
                assert (await get(url)).status == (401 if auth else 200)
        assert {log["event"] for log in logs} <= {"malformed_request"}
        assert not caplog.records
        assert CANARY not in f"{logs} {reply!r}"

    fuzz(200, fake_time(send))


HASH = "a" * 21 + "O" + "b" * 30 + "C"
EXAMPLE = (Path(__file__).parents[2] / "deploy" / "settings.example.yml").read_text()
FILES: tuple[tuple[Callable[[Path], object], str], ...] = (
    (load_web_config, f"basic_auth_users:\n  alice: $2y$10${HASH}\n"
     "http_server_config: {headers: {X-Frame-Options: deny}}\n"),
    (load_web_config, "tls_server_config: {cert_file: cert.pem, key_file: key.pem}\n"),
    (lambda path: load_settings([f"--config.file={path}"], {}),
     EXAMPLE.replace("# token: 0", f"token: {CANARY}").replace("# proxy: ", "proxy: ")),
)  # fmt: skip
YAML_WORDS = (
    "&a |*a|!!python/object:os.system ls|!x |<<: |---\n|\t|\0|\xff|? [a]\n: b\n|- |{|>\n|'|\"|#|: |"
    f"~|0x1F|1e400|-1|10y|((a+)+)+$|(|[a-|\\|/dev/null|/x|http://[::1|{'[' * 3000}|{'9' * 5000}"
)


def test_any_file_is_valid_or_has_problems(tmp_path: Path) -> None:
    def load_damaged(rng: Random) -> None:
        path, (load, example) = tmp_path / "file.yml", rng.choice(FILES)
        path.write_bytes(damage(rng, example.encode(), YAML_WORDS.encode("latin-1").split(b"|")))
        start, problems = time.process_time(), ()
        try:
            load(path)
        except SettingsError as error:
            problems = error.problems
        assert time.process_time() - start < 10.0  # alias bombs take minutes
        assert all(each.isprintable() and len(each) < 1000 for each in problems)
        assert not [each for each in problems if CANARY in each or HASH in each]

    fuzz(100, load_damaged)
