"""Fuzzing: what holds for any response of the API, any request of a scraper, and any file.

The tests run a few cases, always the same. `make fuzz` runs other cases, each test for a while.
"""

import asyncio
import gzip
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from aiohttp import web
from factories import parse
from failures.harness import trial
from fake_clock import fake_time
from structlog.testing import capture_logs
from web_server import TLS, USERS, connection, get, serve

from exporter.clock import Clock
from exporter.errors import SettingsError
from exporter.settings import load as load_settings
from exporter.simulator import Fault, World
from exporter.sources.sessions import SERIES
from exporter.thousandeyes.api import VERSIONS
from exporter.web.auth import Authenticator
from exporter.web.config import load as load_web_config

CANARY = "canary9hT2xVq"
WORLD = World(agents=20, sites=6)
REASONS = {"json", "schema", "pagination_origin", "pagination_loop", "protocol", "forbidden"}
"""Why polls may fail; the last two because cursors and account groups are changed."""


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
    *(0, -1, 101, -0.0, 1.5, 5e-324, 1.7e308, 2**53 + 1, 2**64, -60, 253_402_300_740),
    *(float("nan"), float("-inf"), "@@1e999@@", f"@@{'9' * 5000}@@", "@@1E10@@", "@@01@@"),
)
TEXTS = ("__name__", "__other__", "NaN", "150", "# EOF", "[::1]:443", "HOST.example:80", "host.")
CHARACTERS = "abA.019 \"'\\\n\t\x00\x1b#{}=,:\u202e\u200b\u2028\ufeff\u3000ée\u0301🦔"
OTHERS = (
    *(None, True, [], {}, [[]], {"": ""}, {"href": None}, {"href": 1}, [None] * 50, "\ud800"),
    *("@@" + "[" * depth + "]" * depth + "@@" for depth in (10, 100_000)),
)


def any_text(rng: Random) -> str:
    """Return a text that may mean something, or random characters."""
    length = rng.choice((0, 1, 9, 299, 300, 10_000))
    return rng.choice((rng.choice(TEXTS), "".join(rng.choices(CHARACTERS, k=length))))


def mutate(rng: Random, node: Any) -> Any:
    """Return a copy of a JSON document with one change at a random place."""
    if not isinstance(node, dict | list) or not node or rng.random() < 0.05:
        return rng.choice((rng.choice(NUMBERS), any_text(rng), rng.choice(OTHERS)))
    copy = node.copy()
    key = rng.choice(list(copy) if isinstance(copy, dict) else range(len(copy)))
    match rng.randrange(16):
        case 0:
            del copy[key]
        case 1 if isinstance(copy, dict):
            copy[any_text(rng)] = copy.pop(key)
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


def mutated(rng: Random) -> Fault:
    """Return a fault that changes some of the records, and a few of the pages."""

    async def change(_request: web.Request, response: web.Response) -> web.Response:
        zipped, body = response.headers.pop("Content-Encoding", ""), response.body
        assert isinstance(body, bytes)
        page = json.loads(gzip.decompress(body) if zipped else body)
        for records in (each for each in page.values() if isinstance(each, list) and each):
            for each in rng.choices(records, k=9):
                each.update(dict.fromkeys(each.keys() & {rng.choice(TEXT_FIELDS)}, any_text(rng)))
            for index in rng.choices(range(len(records)), k=rng.choice((0, 1, 5))):
                records[index] = mutate(rng, records[index])
        page = mutate(rng, page) if rng.random() < 0.05 else page
        body = LITERAL.sub(r"\1", json.dumps(page)).encode()
        response.body = damage(rng, body, JSON_WORDS) if rng.random() < 0.05 else body
        return response

    return Fault("mutated", "", response=change)


async def poll_and_scrape(rng: Random) -> None:
    settings = {
        "api__version": rng.choice(list(VERSIONS)),
        "api__account_groups": rng.choice(("all", "1001")),
        "metrics__max_series": rng.choice((40, 400, 100_000)),
    }
    async with trial(world=WORLD, **settings) as t:
        t.simulator.faults = (mutated(rng),)
        await asyncio.sleep(310)
        assert all(line.isprintable() for line in t.log)
        assert {*re.findall(r" reason=(\S+)", "\n".join(t.log))} <= REASONS
        names, published = {family.name for family in SERIES.families}, await t.get("/metrics")
        series = sum(name in names for name, _ in parse(published))
        assert 0 < series == t.value("series", None) <= settings["metrics__max_series"]


def test_any_response_is_read_or_rejected_and_the_exposition_is_valid():
    fuzz(8, fake_time(poll_and_scrape))


REQUESTS = (
    b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: */*;q=0.5\r\nAccept-Encoding: gzip\r\n\r\n",
    b"HEAD /?a=b HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\nCookie: a=b\r\n\r\n",
    b"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"GET http://x/-/ready HTTP/1.0\r\nHost: x\r\n\r\n",
)
HTTP_WORDS = (
    f"{CANARY}|X: {CANARY}\r\n|Authorization: Basic {CANARY}\r\n|X: {'z' * 9000}\r\n|Host: y\r\n|"
    f"Content-Length: 5\r\n|Content-Length: +5\r\n|Content-Length: {'9' * 20}\r\n|{'f' * 20}\r\n|"
    "Transfer-Encoding : chunked, identity\r\n|Upgrade: h2c\r\n|Expect: 100-continue\r\n|: x\r\n|"
    "|-1\r\n|\r\n|\n|\r|\0|\xff| |:|*|CONNECT|HTTP/0.9|http://[::1/|//|%00|" + "X: y\r\n" * 200
).encode("latin-1")


def test_any_request_leaves_the_server_responsive(tmp_path: Path, caplog: Any) -> None:
    path, words = tmp_path / "web.yml", HTTP_WORDS.split(b"|")
    path.write_text(USERS)

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
YAML_WORDS = (
    "&a |*a|!!python/object:os.system ls|!x |<<: |---\n|\t|\0|\xff|? [a]\n: b\n|- |{|>\n|'|\"|#|: |"
    f"~|0x1F|1e400|-1|10y|((a+)+)+$|(|[a-|\\|/dev/null|/x|http://[::1|{'[' * 3000}|{'9' * 5000}"
).encode("latin-1")


def test_any_file_is_valid_or_has_problems(tmp_path: Path) -> None:
    path, web_config = tmp_path / "file.yml", f"basic_auth_users:\n  alice: $2y$10${HASH}\n{TLS}"
    settings = EXAMPLE.replace("# token: 0", f"token: {CANARY}")

    def load_damaged(rng: Random) -> None:
        example, start, problems = rng.choice((web_config, settings)), time.process_time(), ()
        path.write_bytes(damage(rng, example.encode(), YAML_WORDS.split(b"|")))
        try:
            if example == settings:
                load_settings([f"--config.file={path}"], {})
            else:
                load_web_config(path)
        except SettingsError as error:
            problems = error.problems
        assert time.process_time() - start < 10.0  # alias bombs take minutes
        assert all(each.isprintable() and len(each) < 1000 for each in problems)
        assert not [each for each in problems if CANARY in each or HASH in each]

    fuzz(100, load_damaged)
