"""Failure modes of docs/failure-modes.md that need a complete exporter; a test's id has its row."""

import asyncio
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from api_faults import faults
from failures.harness import TOKEN, Trial, failing, full_listen_queue, trial
from fake_clock import fake_time, wall
from pki import server_context, shared_authority
from soak import soak

from exporter.errors import Reason
from exporter.simulator import World


async def refuse(t: Trial, _: AsyncExitStack) -> None:
    await t.simulator.stop()


async def drop_packets(t: Trial, sockets: AsyncExitStack) -> None:
    await t.simulator.stop()
    sockets.enter_context(full_listen_queue(t.port))


async def slow_pages(t: Trial, _: AsyncExitStack) -> None:
    t.simulator.page_size = 1
    t.simulator.faults = faults("slow")


FAILED_POLLS: dict[str, tuple[str | Callable[[Trial, AsyncExitStack], Awaitable[None]], Reason]] = {
    "U01": (refuse, "connect"),
    "U02": (drop_packets, "timeout"),
    "U03-no-response": ("hang", "timeout"),
    "U03-trickle": ("trickle", "timeout"),
    "U06-before-the-response": ("reset", "reset"),
    "U06-in-the-body": ("cut", "reset"),
    "U22": (slow_pages, "deadline"),
    "H01": ("unauthorized", "auth"),
    "H03": ("forbidden", "forbidden"),
    "H04": ("not_found", "not_found"),
    "H05": ("redirect", "redirect"),
    "H07": ("rate_limited_bare", "rate_limited"),
    "H13": ("server_error", "server_error"),
    "H14": ("maintenance", "maintenance"),
    "H15": ("html", "content_type"),
    "H21": ("bad_gzip", "decompress"),
    "G01": ("next_other_host", "pagination_origin"),
    "G07": ("next_loop", "pagination_loop"),
    "G17": ("other_schema", "schema"),
    "D01": ("not_json", "json"),
    "L02": ("endless", "too_large"),
}


@pytest.mark.parametrize("row", FAILED_POLLS)
@fake_time
async def test_a_failure_fails_polls_with_its_reason_and_the_exporter_recovers(row):
    """The invariants of all rows are checked by `failing`."""
    cause, reason = FAILED_POLLS[row]
    names = [cause] if isinstance(cause, str) else []
    async with trial() as t:
        before = t.value("api_retries_total", None, reason=reason)
        recovery = 155 if reason == "rate_limited" else None
        async with failing(t, *names, recovery=recovery) as failed, AsyncExitStack() as sockets:
            if callable(cause):
                await cause(t, sockets)
            await t.polls(2)
            assert t.value("thousandeyes_up") == 0
            assert t.value("api_retries_total", None, reason=reason) - before <= 4
            t.simulator.page_size = 1000
        assert set(failed) == {reason}
        log = "\n".join(t.log)
        assert re.search(f"event=poll_failed .*reason={reason} .*hint=", log)
        assert "event=poll_recovered" in log
        assert "sign in" not in log


@pytest.mark.parametrize(
    "options",
    [{"sans": "DNS:localhost", "until": 2021}, {"sans": "DNS:api.example.net"}, {}],
    ids=["U16-expired", "U16-other-host", "U16-self-signed"],
)
@fake_time
async def test_without_a_valid_certificate_the_poll_fails_before_a_request(options):
    authority = shared_authority()
    good = server_context(authority.issue("good", sans="DNS:localhost"))
    async with trial(tls=good, api__ca_file=authority.certificate) as t:
        async with failing(t) as failed:
            t.simulator.requests.clear()
            bad = authority.issue("bad", **options) if options else authority.identity
            await t.restart_api(server_context(bad))
            await t.polls()
            assert not t.simulator.requests
        assert set(failed) == {"tls"}
        async with failing(t) as failed:
            await t.simulator.stop()
            with socket.create_server(("127.0.0.1", t.port)):  # answers no handshake
                await t.polls()
            assert t.value("last_poll_duration_seconds") <= 45
        assert set(failed) == {"timeout"}


@pytest.mark.parametrize("row", ["U09"])
@fake_time
async def test_an_idle_connection_that_was_closed_costs_no_poll(row):
    async with trial() as t:
        await t.restart_api()
        await t.polls()
        assert t.failures() == {}


@pytest.mark.parametrize("row", ["H02"])
@fake_time
async def test_a_replaced_token_file_is_used_by_the_next_poll(row, tmp_path):
    file = tmp_path / "token"
    file.write_text("canary-other\n")
    async with trial(ready=False, api__token=None, api__token_file=file) as t:
        await t.until(lambda: "event=account_groups_not_listed" in "".join(t.log))
        assert t.value("thousandeyes_up") != 1
        file.write_text(f"{TOKEN}\n")
        await t.until(t.exporter.ready)


@pytest.mark.parametrize(
    ("groups", "names", "failing_aid"),
    [("all", ["forbidden_group"], "1002"), ("1001,4711", [], "4711")],
    ids=["H03", "C14"],
)
@fake_time
async def test_an_account_group_that_fails_does_not_affect_others(groups, names, failing_aid):
    settings = {"initial_faults": faults(*names), "api__account_groups": groups}
    async with trial(world=World(agents=6, account_groups=3), ready=False, **settings) as t:
        await t.until(lambda: failing_aid in t.aids)
        await t.polls(2)
        assert [aid for aid in t.aids if not t.value("thousandeyes_up", aid)] == [failing_aid]
        assert t.failures().keys() == {"forbidden"}
        assert not t.exporter.ready()


@pytest.mark.parametrize("row", ["H18"])
@fake_time
async def test_empty_listings_are_published(row):
    async with trial() as t:
        async with failing(t, "empty") as failed:
            await asyncio.sleep(1100)
            assert t.value("thousandeyes_up") == 1
            assert not await t.rounds()
        assert not failed


@pytest.mark.parametrize("row", ["U23"])
@fake_time
async def test_an_outage_of_an_hour_leaves_no_trace(row):
    async with trial() as t:
        async with failing(t) as failed:
            await t.simulator.stop()
            polls = t.value("polls_total")
            await asyncio.sleep(3600)
            assert t.value("polls_total") - polls == pytest.approx(60, abs=1)
            assert t.value("api_retries_total", None, reason="connect") <= 20
            assert not await t.rounds(), "everything has expired"
        assert set(failed) == {"connect"}


@pytest.mark.parametrize("row", ["U24"])
@fake_time
async def test_half_of_the_requests_fail_and_rounds_are_published(row):
    async with trial() as t, failing(t) as failed:
        poller, seen, start = t.exporter.manager.pollers[0], set(), wall()
        t.simulator.faults = faults("server_error=0.5")
        for _ in range(60):
            await asyncio.sleep(60)
            seen |= {user.round for user, _ in poller.source.result.rows}
        sessions = t.simulator.world.sessions(1001, start, wall() - 600, wall())
        expected = {session.round_id for session in sessions if session.listed}
        assert len(expected & seen) >= 0.95 * len(expected) > 40
    assert set(failed) == {"server_error"}


@pytest.mark.parametrize("row", ["L12"])
@fake_time
async def test_twenty_account_groups_share_the_rate_limit_fairly(row):
    world = World(agents=60, sites=3, account_groups=20)
    settings = {"api__account_groups": "all", "api__requests_per_minute": 50}
    async with trial(world=world, ready=False, **settings) as t:
        await t.until(lambda: len(t.aids) == 20)
        await asyncio.sleep(450)
        late = [t.value("poll_failures_total", aid, reason="deadline") for aid in t.aids]
        polls = [t.value("polls_total", aid) - n for aid, n in zip(t.aids, late, strict=True)]
        assert min(polls) > 3
        assert max(polls) <= 2 * min(polls)


@pytest.mark.parametrize("row", ["G15"])
@fake_time
async def test_hours_of_label_churn_late_commits_and_random_faults(row):
    """Every scrape between faults is equal to what the simulated company did."""
    counts = await soak(minutes=50, seed=7)
    assert counts["polls"] >= 45
    assert counts["failed"] > 4
    assert counts["scrapes"] > 30
    assert counts["values"] > 12_000
