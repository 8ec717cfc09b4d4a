"""Rows H: what the API says, and what it does not."""

import asyncio
import gzip
import json
import random
import zlib
from collections.abc import Callable
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from raw import Call, Script, reply, serving
from servers import TOKEN

from exporter.api.http import ATTEMPTS
from exporter.exposition import Format
from exporter.simulator import World
from faults.conftest import Trial, row, trial
from faults.elastic import wall
from faults.test_transport import CHUNKED, HEAD, once, retried, says

TWO = World(agents=6, sites=3, account_groups=2)
ALL = {"api__account_groups": "all"}
LIMIT, REMAINING, RESET = (f"X-Organization-Rate-Limit-{name}" for name in ("Limit", "Remaining", "Reset"))


@row("H01", one_group=1, three_groups=3)
async def test_a_refused_token_is_tried_once_an_interval(case: int) -> None:
    """The API shuts out an address after 120 refusals in an hour; at first, each account group finds out by itself."""
    async with trial(world=World(agents=6, sites=3, account_groups=case), **ALL) as t, t.fault("unauthorized"):
        asked = len(t.api.calls)
        await t.polls(9)
        assert t.failed == {"auth": 9 * case}
        assert 9 <= len(t.api.calls) - asked <= 9 + case
        assert retried(t, "server_error") == 0
        lines = [line for line in t.lines() if "event=poll_failed" in line]
        assert lines
        assert all("reason=auth" in line and "api.token" in line for line in lines)
        assert len(lines) <= 10 * case, "a line a minute at most"


@row("H02")
async def test_a_token_that_was_changed_on_disk_is_used_at_once(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    async with trial(api__token=None, api__token_file=str(file)) as t, t.fault():
        t.api.simulator._bearer = "Bearer rotated"
        await t.polls(2)
        assert t.failed == {"auth": 2}
        file.write_text("rotated\n")


@row("H03")
async def test_a_group_that_is_forbidden_disturbs_no_other() -> None:
    async with trial(world=TWO, **ALL) as t, t.fault("forbidden_group"):
        await t.polls(2)
        assert t.failed == {"forbidden": 2}
        assert (t.of("thousandeyes_up", "1001"), t.of("thousandeyes_up", "1002")) == (1, 0)
        assert t.of("poll_failures_total", "1002", reason="forbidden") == 2


@row(
    "H04",
    not_found=(404, "not_found"),
    method_not_allowed=(405, "protocol"),
    not_acceptable=(406, "protocol"),
    unsupported=(415, "protocol"),
)
async def test_what_the_api_does_not_know_is_asked_once(case: tuple[int, str]) -> None:
    async with trial() as t, t.fault():
        t.api.says(reply("<html>", case[0], "text/html"))
        asked = len(t.api.calls)
        await t.polls(2)
        assert (t.failed, len(t.api.calls) - asked) == ({case[1]: 2}, 2)


@row("H05")
async def test_another_version_is_not_gone_to() -> None:
    async with trial() as t, t.fault("redirect"):
        asked = len(t.api.calls)
        await t.polls(2)
        assert (t.failed, len(t.api.calls) - asked) == ({"redirect": 2}, 2)
        assert "elsewhere" not in str([call.target for call in t.api.calls])
        line = next(line for line in t.lines() if "reason=redirect" in line)
        assert "/v7/" in line
        assert "api.version" in line


@row(
    "H06",
    other_host="{other}/v7/endpoint",
    other_scheme="https://127.0.0.1:{port}/",
    other_port="//127.0.0.1:1/",
    relative="/v7/elsewhere",
    loop="/v7/endpoint/test-results/real-user-tests/filter?",
    nowhere="http://[::1",
)
async def test_no_redirect_is_followed(case: str) -> None:
    async with serving(reply()) as other, trial() as t, t.fault():
        location = case.format(other=other.url, port=t.api.port)
        t.api.says(reply("", 302, "", Location=location))
        asked = len(t.api.calls)
        await t.polls()
        assert (t.failed, len(t.api.calls) - asked) == ({"redirect": 1}, 1)
        assert other.connections == 0
        assert not [line for line in t.lines() if f"{location} " in line]


def refusing(**headers: Callable[[], str] | str) -> Script:
    """Refuse for the limit, as of now."""

    async def script(call: Call) -> None:
        said = {name: value if isinstance(value, str) else value() for name, value in headers.items()}
        await call.say(reply("", 429, "", Date=formatdate(wall(), usegmt=True), **said))

    return script


def reset_in(seconds: float) -> dict[str, Callable[[], str]]:
    return {RESET.replace("-", "_"): lambda: str(int(wall() + seconds))}


async def waited(t: Trial, script: Script) -> float:
    """Refuse once, and return the seconds until it was asked again."""
    t.api.choose = once(script)
    asked = len(t.api.calls)
    await t.polls()
    assert t.failed == {}
    first, second = t.api.times(asked)[:2]
    return second - first - 0.05


@row("H07")
async def test_the_reset_is_waited_for_by_the_apis_clock() -> None:
    """The jitter of up to a second is on top, and the API tells the time in whole seconds."""
    async with trial() as t, t.fault():
        assert 19 <= await waited(t, refusing(**reset_in(20))) <= 22
        asked = len(t.api.calls)
        t.api.says(refusing(**reset_in(20)))
        await t.polls()
        assert t.failed == {"rate_limited": 1}
        assert len(t.api.calls) - asked == 2


@row(
    "H08",
    seconds=({"Retry_After": "7"}, 7),
    a_date=({"Retry_After": lambda: formatdate(wall() + 20, usegmt=True)}, 20),
    both=({"Retry_After": "7", **reset_in(20)}, 20),
    both_the_other_way_round=({"Retry_After": "40", **reset_in(20)}, 40),
)
async def test_of_two_hints_the_longer_counts(case: tuple[dict[str, Any], float]) -> None:
    async with trial() as t, t.fault():
        assert case[1] - 1 <= await waited(t, refusing(**case[0])) <= case[1] + 2


@row(
    "H09",
    nothing={},
    past=reset_in(-3600),
    zero={"Retry_After": "0", RESET.replace("-", "_"): "0"},
    negative={"Retry_After": "-5", RESET.replace("-", "_"): "-5"},
    nan={"Retry_After": "NaN", RESET.replace("-", "_"): "NaN"},
    huge={"Retry_After": str(10**12)},
    milliseconds={RESET.replace("-", "_"): lambda: str(int(wall() * 1000))},
)
async def test_a_hint_that_is_none_is_a_wait_within_reason(case: dict[str, Any]) -> None:
    """Never longer than the poll may take, or it would have failed of that; never a loop: two a poll at most."""
    async with trial() as t, t.fault(recovers=155):
        t.api.says(refusing(**case))
        asked, polls = len(t.api.calls), t.of("polls_total")
        await asyncio.sleep(600)
        times = t.api.times(asked)
        gaps = [second - first for first, second in pairwise(times)]
        assert all(1.0 <= gap <= 92 for gap in gaps)
        assert 5 <= len(times) <= 2 * (t.of("polls_total") - polls) + 1
        assert set(t.failed) == {"rate_limited"}


@row("H10")
async def test_half_an_hour_of_refusals() -> None:
    async with trial() as t, t.fault("rate_limited", recovers=95):
        asked = len(t.api.calls)
        await asyncio.sleep(1800)
        assert len(t.api.calls) - asked <= 31, "one a minute"
        assert "thousandeyes_endpoint_latency_seconds" not in await t.scrape(), "and meanwhile everything has grown old"


@row("H11")
async def test_the_last_tenth_is_left_to_others() -> None:
    """Another tool uses the organization's requests up: every minute begins with 24 of 240."""
    async with trial() as t, t.fault(recovers=125):
        rate = t.api.simulator._rate
        rate.limit = 240
        asked = len(t.api.simulator.requests)

        async def shared(call: Call) -> None:
            rate.headers(wall())
            rate.used = max(rate.used, 216)

        t.api.delay = shared
        await t.polls(5)
        requests = list(t.api.simulator.requests)[asked:]
        assert {request.status for request in requests} == {200}
        minutes = [int(request.time) // 60 for request in requests]
        assert max(map(minutes.count, minutes)) <= 3, "the one that finds out, and those that were under way"
        assert t.failed == {}
        assert [line for line in t.lines() if "waited_for_requests" in line or "poll_skipped" in line]
        rate.limit = 1_000_000


@row("H12", missing=b"", garbage=LIMIT.encode() + b": lots", halved=LIMIT.encode() + b": 240")
async def test_a_limit_that_is_not_said_is_not_shown(case: bytes) -> None:
    faults = () if case else ("no_rate_headers",)
    async with trial(*faults, ready=False) as t:
        if case:
            t.api.alter = lambda data: data.replace(LIMIT.encode() + b": 1000000", case)
        await t.until(t.exporter.ready)
        async with t.fault():
            if case:
                t.api.alter = lambda data: data.replace(LIMIT.encode() + b": 1000000", case)
            t.api.fails(*faults)
            await t.polls(2)
            assert t.failed == {}
            shown = (await t.scrape()).get("thousandeyes_exporter_api_rate_limit_requests", {})
            assert list(shown.values()) == ([240.0] if b"240" in case else [])
            assert t.exporter.settings.api.requests_per_minute == 10_000


@row("H13", internal=500, bad_gateway=502, timeout=504)
async def test_a_server_error_is_tried_again_after_a_random_wait(case: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with trial() as t, t.fault():
        shares = iter([0.25, 0.75])
        monkeypatch.setattr(random, "random", lambda: next(shares))
        t.api.says(reply("{}", case))
        asked = len(t.api.calls)
        await t.polls()
        assert t.failed == {"server_error": 1}
        first, second, third = t.api.times(asked)
        assert len(t.api.times(asked)) == ATTEMPTS
        assert second - first == pytest.approx(0.25 * 1 + 0.05, abs=0.02)
        assert third - second == pytest.approx(0.75 * 2 + 0.05, abs=0.02)


@row("H14")
async def test_maintenance_is_asked_about_once_an_interval() -> None:
    async with trial() as t, t.fault("maintenance"):
        asked = len(t.api.calls)
        await t.polls(5)
        assert (t.failed, len(t.api.calls) - asked) == ({"maintenance": 5}, 5)


@row("H15")
async def test_the_page_of_a_portal_is_neither_read_nor_repeated() -> None:
    async with trial() as t, t.fault("html"):
        await t.polls()
        assert t.failed == {"content_type": 1}
        assert not [line for line in t.lines() if "sign in" in line or "<html" in line]


@row("H18")
async def test_an_empty_answer_is_an_answer() -> None:
    """What was published before stays until the look-back has passed over it, as in any other poll."""
    async with trial() as t, t.fault("empty"):
        await t.polls()
        assert (t.failed, t.of("thousandeyes_up")) == ({}, 1)
        await asyncio.sleep(t.exporter.settings.poll.lookback + 60)
        assert t.failed == {}
        assert t.of("thousandeyes_up") == 1
        assert t.value("series") == 0
        assert "thousandeyes_endpoint_latency_seconds" not in await t.scrape()


@row("H19", v6="v6", v7="v7")
async def test_xml_is_not_asked_for_and_not_read(case: str) -> None:
    async with trial(api__version=case) as t, t.fault("xml"):
        await t.polls()
        assert t.failed == {"content_type": 1}
        for call in t.api.calls:
            assert (call.header("Accept") or "").startswith("application/json")
            assert "xml" not in (call.header("Accept") or "") + call.target


GOOD = gzip.compress(b'{"results": []}' * 100)


@row(
    "H21",
    plain=("gzip", b'{"results": []}'),
    empty=("gzip", b""),
    cut=("gzip", GOOD[:-1]),
    more=("gzip", GOOD + b"more"),
    two_members=("gzip", GOOD + GOOD),
    damaged=("gzip", GOOD[:30] + b"\xff\xff\xff" + GOOD[33:]),
    wrong_checksum=("gzip", GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:]),
    zlib=("gzip", zlib.compress(b"{}")),
    deflate=("deflate", zlib.compress(b"{}")),
    brotli=("br", b"\x0b\x01\x80{}\x03"),
    zstandard=("zstd", b"(\xb5/\xfd\x04\x00"),
    twice=("gzip, gzip", gzip.compress(GOOD)),
    long_name=("x" * 5000, b"{}"),
)
async def test_a_body_that_is_not_compressed_as_it_says(case: tuple[str, bytes]) -> None:
    async with trial() as t, t.fault():
        t.api.says(reply(case[1], Content_Encoding=case[0]))
        await t.polls()
        assert t.failed == {"decompress": 1}
        assert {call.header("Accept-Encoding") for call in t.api.calls} == {"gzip"}


def many(opening: bytes, piece: Callable[[int], bytes], times: int) -> Script:
    """Say something in many pieces, of which nothing is kept here."""

    async def script(call: Call) -> None:
        await call.say(opening)
        for number in range(times):
            await call.say(piece(number))
        call.close()

    return script


async def hints(call: Call) -> None:
    while True:
        await call.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100, every=0.1)


@row(
    "H22",
    early_hints=(hints, {"timeout"}),
    headers=(many(HEAD, lambda n: b"X-%d: 1\r\n" % n, 200), {"protocol", "reset"}),
    a_header_of_9_kb=(says(HEAD + b"X: " + b"a" * 9000 + b"\r\n\r\n"), {"protocol"}),
    a_reason_of_64_kb=(says(b"HTTP/1.1 200 " + b"a" * 65536 + b"\r\n\r\n"), {"protocol"}),
    trailers=(many(CHUNKED + b"2\r\n{}\r\n0\r\n", lambda n: b"X-%d: 1\r\n" % n, 50_000), {"protocol", "reset"}),
    bytes_of_another_protocol=(says(b"\x15\x03\x01\x00\x02\x02\x28\r\n\r\n"), {"protocol"}),
    no_status_line=(says(b"{}\r\n\r\n"), {"protocol"}),
    a_status_of_four_digits=(says(b"HTTP/1.1 2000 OK\r\n\r\n"), {"protocol"}),
    two_lengths=(says(HEAD + b"Content-Length: 5\r\nContent-Length: 2\r\n\r\n{}"), {"protocol"}),
    a_length_with_a_sign=(says(HEAD + b"Content-Length: +2\r\n\r\n{}"), {"protocol"}),
    a_length_beyond_all=(says(HEAD + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n{}"), {"protocol"}),
    a_length_and_chunks=(
        says(HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"),
        {"protocol"},
    ),
    another_protocol=(
        says(b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"),
        {"protocol"},
    ),
)
async def test_what_is_no_http_costs_the_poll_and_no_memory(case: tuple[Script, set[str]]) -> None:
    """The most that the process had at a time, against what it had before: both ends of the connection are in it."""
    async with trial() as t, t.fault():
        t.api.says(case[0])
        await t.polls()
        before = most_memory(reset=True)
        await t.polls(2)
        assert most_memory() - before <= 2 * 1024 * 1024
        assert set(t.failed) <= case[1]
        assert sum(t.failed.values()) == 3
        assert all(len(line) < 500 for line in t.lines() if "poll_failed" in line), "what was said is not repeated"


def most_memory(*, reset: bool = False) -> int:
    """Return the largest resident size so far, bytes; from now on again if so wished."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@row("H23")
async def test_cookies_are_never_sent_back() -> None:
    async with trial() as t, t.fault():
        t.api.alter = lambda data: data.replace(b"\r\n\r\n", b"\r\nSet-Cookie: tracking=1; Path=/\r\n\r\n", 1)
        await t.polls(3)
        assert t.failed == {}
        assert {call.header("Cookie") for call in t.api.calls} == {None}


@row("H25")
async def test_two_answers_at_once_do_not_shift_the_next_one() -> None:
    smuggled = reply(json.dumps({"results": [{"id": "smuggled"}]}))
    async with trial() as t, t.fault():
        connections = t.api.connections
        t.api.choose = once(reply(json.dumps({"results": []})) + smuggled)
        await t.polls(2)
        assert t.failed == {}
        assert t.api.connections > connections, "the connection with what came too much is not used again"
        assert t.of("records_rejected_total", reason="missing_field") == 0
        assert "smuggled" not in t.exporter.telemetry.render(Format.TEXT) + await t.text()
