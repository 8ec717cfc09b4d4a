"""Failure modes of docs/failure-modes.md that need a complete exporter; a test's id has its row."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from api_faults import faults
from failures.harness import TOKEN, Front, Handler, Trial, failing, trial
from fake_clock import fake_time, wall
from pki import Authority, server_context
from soak import soak

from exporter.errors import REJECTION_REASONS, Reason
from exporter.simulator import World

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
TWO_GROUPS = World(agents=6, sites=3, account_groups=2)


def sends(*pieces: bytes, interval: float = 0.0, then: str = "close") -> Handler:
    """Read a request and send bytes; then close, reset or keep the connection."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(interval)
        if then == "keep":
            await asyncio.Event().wait()
        elif then == "close":
            writer.close()
            await writer.wait_closed()

    return handle


def json_body(body: bytes, **headers: str) -> Handler:
    """Send a complete response."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return sends(OK + f"Content-Length: {len(body)}\r\n{lines}\r\n".encode() + body)


Break = Callable[[Trial], Awaitable[None]]


def connection(handler: Handler) -> Break:
    """Handle all connections in this way."""
    return lambda t: t.front.replace(handler=handler)


def fault(name: str) -> Break:
    """Apply a fault of the simulator."""

    async def apply(t: Trial) -> None:
        t.simulator.faults = faults(name)

    return apply


async def refuse(t: Trial) -> None:
    await t.front.close()


async def drop_packets(t: Trial) -> None:
    await t.front.drop_packets()


async def slow_pages(t: Trial) -> None:
    t.simulator.page_size = 1
    t.simulator.faults = faults("slow")


LENGTH = OK + b"Content-Length: 100\r\n\r\n"
GZIP = gzip.compress(b'{"results": []}' * 100)

FAILED_POLLS: dict[str, tuple[Break, Reason]] = {
    "U01-refused": (refuse, "connect"),
    "U02-packets-dropped": (drop_packets, "timeout"),
    "U03-no-response": (connection(sends(then="keep")), "timeout"),
    "U03-trickle": (
        connection(sends(OK + b"Content-Length: 1000\r\n\r\n", *[b" "] * 1000, interval=0.2)),
        "timeout",
    ),
    "U06-before-the-response": (connection(sends(then="reset")), "reset"),
    "U06-in-the-body": (connection(sends(LENGTH + b"{", then="reset")), "reset"),
    "U22-too-slow": (slow_pages, "deadline"),
    "H01": (fault("unauthorized"), "auth"),
    "H04": (fault("not_found"), "not_found"),
    "H05": (fault("redirect"), "redirect"),
    "H07-recurring": (fault("rate_limited_bare"), "rate_limited"),
    "H13": (fault("server_error"), "server_error"),
    "H14": (fault("maintenance"), "maintenance"),
    "H15": (fault("html"), "content_type"),
    "H21-not-gzip": (fault("bad_gzip"), "decompress"),
    "H21-truncated": (connection(json_body(GZIP[:-1], Content_Encoding="gzip")), "decompress"),
    "G01": (fault("next_other_host"), "pagination_origin"),
    "G07": (fault("next_loop"), "pagination_loop"),
    "G17": (connection(json_body(b'{"userSessions": []}')), "schema"),
    "D01": (connection(json_body(b'{"results": [{"id": "1"')), "json"),
    "L02-announced": (connection(sends(OK + b"Content-Length: 10000000000\r\n\r\n")), "too_large"),
    "L02-decompressed": (
        connection(json_body(gzip.compress(b" " * (65 << 20), 1), Content_Encoding="gzip")),
        "too_large",
    ),
}


@pytest.mark.parametrize("row", FAILED_POLLS)
@fake_time
async def test_a_failure_fails_polls_with_its_reason_and_the_exporter_recovers(row: str) -> None:
    """The invariants of all rows are checked by `failing`."""
    break_, reason = FAILED_POLLS[row]
    async with trial() as t:
        async with failing(t, recovery=155 if reason == "rate_limited" else None) as failed:
            before = t.value("api_retries_total", None, reason=reason)
            await break_(t)
            await t.polls(2)
            assert t.value("thousandeyes_up") == 0
            retries = t.value("api_retries_total", None, reason=reason) - before
            assert retries <= 4
        t.simulator.page_size = 1000
        assert set(failed) == {reason}
        lines = [line for line in t.log if "event=poll_failed" in line]
        assert any(f"reason={reason}" in line and "hint=" in line for line in lines)
        assert "sign in" not in "".join(t.log)
        assert any("event=poll_recovered" in line for line in t.log)


# TLS and DNS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that the exporter trusts."""
    return Authority(tmp_path_factory.mktemp("certificates"), "trusted")


@asynccontextmanager
async def tls_trial(authority: Authority) -> AsyncIterator[Trial]:
    good = server_context(authority.issue("good", sans="DNS:localhost"))
    async with trial(front=Front(good), api__ca_file=authority.certificate) as t:
        yield t


CERTIFICATES: dict[str, dict[str, Any]] = {
    "U16-expired": {"sans": "DNS:localhost", "until": 2021},
    "U16-not-yet-valid": {"sans": "DNS:localhost", "since": 2039},
    "U16-other-host": {"sans": "DNS:api.example.net"},
    "U16-weak-key": {"sans": "DNS:localhost", "key": "rsa1024"},
    "U16-self-signed": {},
}


@pytest.mark.parametrize("row", CERTIFICATES)
@fake_time
async def test_an_invalid_certificate_fails_the_poll_before_a_request(
    row: str, authority: Authority
) -> None:
    options = CERTIFICATES[row]
    identity = authority.issue("bad", **options) if options else authority.identity
    received: list[bytes] = []

    async def record(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.append(await reader.read(1))

    async with tls_trial(authority) as t, failing(t) as failed:
        await t.front.replace(handler=record, tls=server_context(identity))
        await t.polls()
        assert t.failures()["tls"] == 1
        assert not any(received), "no HTTP byte is sent"
    assert set(failed) == {"tls"}


@pytest.mark.parametrize("row", ["U18"])
@fake_time
async def test_a_stalled_tls_handshake_times_out(row: str, authority: Authority) -> None:
    async def stall(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1000):
            pass

    async with tls_trial(authority) as t, failing(t) as failed:
        await t.front.replace(handler=stall)
        await t.polls()
        assert t.value("last_poll_duration_seconds") <= 45
    assert set(failed) == {"timeout"}


# HTTP


@pytest.mark.parametrize("row", ["U09"])
@fake_time
async def test_an_idle_connection_that_was_closed_costs_no_poll(row: str) -> None:
    async with trial() as t, failing(t) as failed:
        await t.front.abort_connections()
        await t.polls()
        assert t.failures() == {}
    assert not failed


@pytest.mark.parametrize("groups", [pytest.param(1, id="H01-one"), pytest.param(3, id="H01-three")])
@fake_time
async def test_a_rejected_token_is_sent_once_in_an_interval(groups: int) -> None:
    """The API blocks an address with 120 rejections in an hour."""
    world = World(agents=6, sites=3, account_groups=groups)
    async with trial(world=world, api__account_groups="all") as t:
        async with failing(t, "unauthorized") as failed:
            requests = len(t.simulator.requests)
            await t.polls(9)
            assert len(t.simulator.requests) - requests <= 9 + 2 * groups
        assert set(failed) == {"auth"}


@pytest.mark.parametrize("row", ["H02"])
@fake_time
async def test_a_replaced_token_file_is_used_by_the_next_poll(row: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    async with trial(api__token=None, api__token_file=file) as t:
        async with failing(t, "unauthorized") as failed:
            await t.polls(2)
            assert t.failures() == {"auth": 2}
            t.simulator.faults = ()
            file.write_text("canary-other\n")
            await t.polls(1)
            file.write_text(f"{TOKEN}\n")
        assert set(failed) == {"auth"}


@pytest.mark.parametrize("row", ["H03"])
@fake_time
async def test_a_forbidden_account_group_does_not_affect_others(row: str) -> None:
    async with trial(world=TWO_GROUPS, api__account_groups="all") as t:
        async with failing(t, "forbidden_group") as failed:
            await t.polls(2)
            assert t.value("thousandeyes_up", "1001") == 1
            assert t.value("thousandeyes_up", "1002") == 0
        assert failed == {"forbidden": 2}


@pytest.mark.parametrize("row", ["U23"])
@fake_time
async def test_an_outage_of_an_hour_leaves_no_trace(row: str) -> None:
    async with trial() as t:
        async with failing(t) as failed:
            await t.front.close()
            connections = t.value("polls_total")
            await asyncio.sleep(3600)
            assert t.value("polls_total") - connections == pytest.approx(60, abs=1)
            assert t.value("api_retries_total", None, reason="connect") <= 20
            assert not await t.rounds(), "everything has expired"
        assert set(failed) == {"connect"}


@pytest.mark.parametrize("row", ["U24"])
@fake_time
async def test_half_of_the_requests_fail_and_rounds_are_published(row: str) -> None:
    async with trial() as t, failing(t) as failed:
        poller = t.exporter.manager.pollers[0]
        seen: set[int] = set()
        start, before = wall(), t.value("api_retries_total", None, reason="server_error")
        requests = len(t.simulator.requests)
        t.simulator.faults = faults("server_error=0.5")
        for _ in range(60):
            await asyncio.sleep(60)
            result: Any = poller.source.result
            seen |= {user.round for user, _ in result.rows}
        expected = {
            session.round_id
            for session in t.simulator.world.sessions(1001, start, wall() - 600, wall())
            if session.listed
        }
        assert len(expected & seen) >= 0.95 * len(expected) > 40
        retries = t.value("api_retries_total", None, reason="server_error") - before
        assert retries <= 10 + 0.1 * (len(t.simulator.requests) - requests)
    assert set(failed) == {"server_error"}


# Rounds and data


@pytest.mark.parametrize("row", ["D12-D13-D14-D16"])
@fake_time
async def test_invalid_records_cost_only_themselves(row: str) -> None:
    world = World(agents=60, sites=8)
    async with trial(world=world, initial_faults=faults("bad_records")) as t:
        await t.polls(2)
        rejected = {r for r in REJECTION_REASONS if t.value("records_rejected_total", reason=r)}
        assert rejected == {"missing_field", "bad_type", "out_of_range", "bad_time"}
        assert t.value("newest_round_timestamp_seconds") <= wall()
        assert len(await t.rounds()) > 50
        assert not t.failures()


# Size and time


@pytest.mark.parametrize("row", ["L12"])
@fake_time
async def test_twenty_account_groups_share_the_rate_limit_fairly(row: str) -> None:
    world = World(agents=60, sites=3, account_groups=20)
    settings = {"api__account_groups": "all", "api__requests_per_minute": 50}
    async with trial(world=world, ready=False, **settings) as t:
        await t.until(lambda: len(t.aids) == 20)
        await asyncio.sleep(700)
        polls = [
            t.value("polls_total", aid) - t.value("poll_failures_total", aid, reason="deadline")
            for aid in t.aids
        ]
        assert min(polls) > 5
        assert max(polls) <= 2 * min(polls)


@pytest.mark.parametrize("row", ["L07"])
@fake_time
async def test_hours_of_label_churn_and_random_faults(row: str) -> None:
    """Every scrape between faults is equal to what the simulated company did."""
    counts, _ = await soak(minutes=120, seed=2)
    assert counts["polls"] >= 110
    assert counts["failed"] > 5
    assert counts["scrapes"] > 60
    assert counts["values"] > 5000


@pytest.mark.parametrize("row", ["C14"])
@fake_time
async def test_an_account_group_of_another_organization_fails_alone(row: str) -> None:
    world = World(agents=6, sites=3, account_groups=1)
    async with trial(world=world, ready=False, api__account_groups="1001,4711") as t:
        await t.until(lambda: len(t.aids) == 2)
        await t.polls(2)
        assert t.value("thousandeyes_up", "1001") == 1
        assert t.value("thousandeyes_up", "4711") == 0
        assert t.failures().keys() <= {"forbidden", "not_found", "protocol"}
        assert not t.exporter.ready()
