"""Rows U: the way to the API."""

import asyncio
import random
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pki import Authority, Identity, openssl, serves
from raw import Call, Script, reply

from exporter.api.budget import Retries
from exporter.api.http import ATTEMPTS, CONNECT
from faults.api import Api
from faults.conftest import COMPANY, Trial, row, trial
from faults.elastic import standing_still, wall

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
BODY = HEAD + b"Content-Length: 100\r\n\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def says(*pieces: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.say(*pieces)
        call.close()

    return script


def resets(*pieces: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.say(*pieces)
        await asyncio.sleep(0.02)
        call.reset()

    return script


def then_silence(*pieces: bytes) -> Script:
    async def script(call: Call) -> None:
        await call.say(*pieces)
        await asyncio.sleep(1e6)

    return script


def retried(t: Trial, reason: str) -> float:
    return t.value("api_retries_total", reason=reason) or 0.0


@row("U01")
async def test_a_refused_connection_is_a_failed_poll() -> None:
    async with trial() as t, t.fault():
        await t.api.hang_up()
        asked = unanswered(t)
        await t.polls(3)
        assert t.failed == {"connect": 3}
        assert t.of("thousandeyes_up") == 0
        assert unanswered(t) - asked <= 3 * ATTEMPTS
        assert [line for line in t.lines() if "event=poll_failed" in line and "reason=connect" in line]


def unanswered(t: Trial) -> float:
    path = "/v7/endpoint/test-results/real-user-tests/filter"
    return t.value("api_requests_total", route=path, code="error") or 0.0


@row("U02")
async def test_a_connection_that_nobody_takes_is_given_up() -> None:
    async with trial() as t, t.fault():
        await t.api.swallow()
        before = t.value("api_request_duration_seconds_sum", route=SESSIONS) or 0
        asked = unanswered(t)
        await t.polls(2)
        assert t.failed == {"timeout": 2}
        took = (t.value("api_request_duration_seconds_sum", route=SESSIONS) or 0) - before
        assert took / (unanswered(t) - asked) == pytest.approx(CONNECT, abs=1)
        assert CONNECT <= 10
        assert t.of("polls_skipped_total") == 0


SESSIONS = "/v7/endpoint/test-results/real-user-tests/filter"


@row("U03")
async def test_an_api_that_never_answers_is_given_up_and_the_next_poll_is_on_time() -> None:
    async with trial() as t, t.fault():
        t.api.says(then_silence())
        asked = len(t.api.calls)
        await t.polls(3)
        assert t.failed == {"timeout": 3}
        assert t.of("last_poll_duration_seconds") <= 31
        first, second, third = t.api.times(asked)
        assert second - first == pytest.approx(60, abs=1)
        assert third - second == pytest.approx(60, abs=1)


@row("U04")
async def test_an_answer_that_trickles_has_an_end() -> None:
    async def trickle(call: Call) -> None:
        await call.say(BODY.replace(b"100", b"1000"), *[b" "] * 1000, every=0.2)

    async with trial() as t, t.fault():
        t.api.says(trickle)
        await t.polls(2)
        assert t.failed == {"timeout": 2}
        assert t.of("last_poll_duration_seconds") <= 60


@row("U05")
async def test_a_peer_that_vanishes_in_the_middle_of_an_answer() -> None:
    """Half a body, and then nothing, not even an end. That no connection is left behind is held in every row."""
    async with trial() as t, t.fault():
        t.api.says(then_silence(BODY + b"{"))
        await t.polls(2)
        assert t.failed == {"timeout": 2}
        await t.until(lambda: not t.exporter.http._session.connector._acquired)
        assert not any(t.exporter.http._session.connector._conns.values()), "such a connection is not used again"


@row(
    "U06",
    before_the_head=resets(),
    in_the_head=resets(HEAD[:20]),
    after_the_head=resets(BODY),
    in_the_body=resets(BODY + b"{"),
    between_chunks=resets(CHUNKED + b"2\r\n{}\r\n"),
    hung_up_before_the_head=says(),
    hung_up_in_the_head=says(HEAD[:20]),
    hung_up_in_the_body=says(BODY + b"{"),
)
async def test_a_connection_that_breaks_is_tried_again_and_its_answer_is_worth_nothing(case: Script) -> None:
    async with trial() as t, t.fault():
        sessions = t.of("sessions", state="joined")
        before = retried(t, "reset")
        t.api.choose = once(case)
        await t.polls()
        assert (t.failed, retried(t, "reset") - before) == ({}, 1)
        t.api.says(case)
        await t.polls()
        assert t.failed == {"reset": 1}
        assert retried(t, "reset") - before == ATTEMPTS
        assert t.of("sessions", state="joined") >= sessions * 0.8


def once(script: Script) -> Callable[[Call], Script | None]:
    """Choose a script for the first request."""
    left = [script]
    return lambda _: left.pop() if left else None


@row(
    "U08",
    without_a_size=(says(CHUNKED + b"zz\r\n{}\r\n0\r\n\r\n"), "protocol"),
    of_a_negative_size=(says(CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n"), "protocol"),
    no_last_one=(says(CHUNKED + b"2\r\n{}\r\n"), "reset"),
)
async def test_chunks_that_are_none(case: tuple[Script, str]) -> None:
    async with trial() as t, t.fault():
        t.api.says(case[0])
        await t.polls()
        assert t.failed == {case[1]: 1}


@row("U09", while_nothing_is_asked=0, as_something_is_asked=1)
async def test_an_idle_connection_that_was_closed_costs_no_poll(case: int) -> None:
    async with trial() as t, t.fault():
        await t.polls()
        before, connections = retried(t, "reset"), t.api.connections
        if case:
            t.api.choose = once(says())
        else:
            for call in t.api.calls:
                call.close()
        await t.polls()
        assert t.failed == {}
        assert retried(t, "reset") - before == case
        assert t.api.connections > connections


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        pass


# Trust.


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "trusted")


def over_tls(authority: Authority) -> dict[str, Any]:
    """Return what a trial needs to be one over TLS, with a certificate that is good."""
    api = Api(COMPANY, wall, serves(authority.issue("good", sans="DNS:localhost,DNS:api.test")))
    return {"api": api, "api__ca_file": str(authority.certificate)}


async def located(over: dict[str, Any]) -> dict[str, Any]:
    """Find the port out beforehand."""
    await over["api"].listen()
    await over["api"].hang_up()
    return {**over, "api__url": over["api"].url}


class Names:
    """A resolver under which the API's name means this machine, or whatever a row wants; it counts."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.asked = 0
        self.instead: Callable[[], None] = lambda: None
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, *arguments: Any, **named: Any) -> Any:
            if host != "api.test":
                return real(host, *arguments, **named)
            self.asked += 1
            self.instead()
            return real("127.0.0.1", *arguments, **named)

        patch.setattr(socket, "getaddrinfo", getaddrinfo)


@row("U11")
async def test_a_name_that_does_not_exist_is_not_asked_for_all_the_time(
    monkeypatch: pytest.MonkeyPatch, authority: Authority
) -> None:
    def unknown() -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names = Names(monkeypatch)
    over = await located(over_tls(authority))
    async with trial(**{**over, "api__url": f"https://api.test:{over['api'].port}"}) as t, t.fault():
        await t.api.hang_up()  # of connections that stay open no name is asked
        names.instead = unknown
        asked = names.asked
        await t.polls(2)
        assert t.failed == {"dns": 2}
        assert names.asked - asked <= 2 * ATTEMPTS
        names.instead = lambda: None


@row("U12")
async def test_a_resolver_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch, authority: Authority) -> None:
    answered = threading.Event()
    names = Names(monkeypatch)
    over = await located(over_tls(authority))
    async with trial(**{**over, "api__url": f"https://api.test:{over['api'].port}"}) as t, t.fault():
        loop = t.loop

        def hang() -> None:
            loop.call_soon_threadsafe(loop.release)  # time goes on while this thread waits
            assert answered.wait(60)
            loop.call_soon_threadsafe(loop.hold)

        await t.api.hang_up()
        names.instead, loop.lag = hang, 0.0
        try:
            await t.polls()
            assert set(t.failed) == {"timeout"}
            assert t.of("last_poll_duration_seconds") <= ATTEMPTS * (CONNECT + 4)
            assert loop.lag <= 0.2
        finally:
            names.instead = lambda: None
            answered.set()
            with standing_still():
                await asyncio.sleep(0)


@row(
    "U16",
    expired={"until": "2021"},
    not_yet_valid={"since": "2039"},
    wrong_host={"sans": "DNS:api.example.net"},
    no_host={"sans": ""},
    sha1={"digest": "sha1"},
    rsa_of_1024_bits={"key": "weak"},
    self_signed={},
)
async def test_a_certificate_that_is_not_good_enough(
    case: dict[str, str], authority: Authority, tmp_path: Path
) -> None:
    async with trial(**await located(over_tls(authority))) as t, t.fault():
        if case:
            bad = authority.issue("bad", **{"sans": "DNS:localhost", **case})
        else:
            bad = Identity(tmp_path / "certificate", tmp_path / "key")
            made = ("-nodes", "-keyout", "key", "-out", "certificate", "-addext", "subjectAltName=DNS:localhost")
            openssl("req", "-x509", "-newkey", "rsa:2048", "-subj", "/CN=localhost", *made, cwd=tmp_path)
        await t.api.present(serves(bad))
        asked = len(t.api.calls)
        await t.polls(2)
        assert t.failed == {"tls": 2}
        assert len(t.api.calls) == asked, "nothing was said to a stranger"


@row("U17", tls10=ssl.TLSVersion.TLSv1, tls11=ssl.TLSVersion.TLSv1_1, hangs_up=None)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_a_server_that_speaks_old_tls_alone(case: ssl.TLSVersion | None, authority: Authority) -> None:
    async with trial(**await located(over_tls(authority))) as t, t.fault():
        old = serves(authority.issue("old", sans="DNS:localhost"))
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = case or ssl.TLSVersion.TLSv1_1
        heard = list[bytes]()

        async def shakes_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            """Answer as OpenSSL does; asyncio's own server would hang up without an alert."""
            coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
            heard.append(await reader.read(10_000))
            coming.write(heard[-1])
            with pytest.raises(ssl.SSLError, match=r"(?i)unsupported protocol|version"):
                old.wrap_bio(coming, going, server_side=True).do_handshake()
            if case:
                writer.write(going.read())
                await writer.drain()
                await reader.read()

        await t.api.present(None)
        t.api.stranger = shakes_hands
        await t.polls()
        assert t.failed == {"tls" if case else "connect": 1}
        assert heard
        assert {each[0] for each in heard} == {0x16}, "a handshake, and no word of HTTP"


@row("U18")
async def test_a_handshake_that_stalls_is_given_up(authority: Authority) -> None:
    async with trial(**await located(over_tls(authority))) as t, t.fault():
        await t.api.present(None)
        t.api.stranger = mute
        await t.polls()
        assert t.failed == {"timeout": 1}
        assert t.of("last_poll_duration_seconds") <= ATTEMPTS * (CONNECT + 4)


@row(
    "U20",
    refuses=None,
    asks_for_credentials=reply("<html>", 407, "text/html"),
    forbids=reply("<html>", 403, "text/html"),
    bad_gateway=reply("<html>", 502, "text/html"),
    hangs=then_silence(),
)
async def test_a_proxy_that_can_not_be_used(case: Script | None, authority: Authority) -> None:
    tunnel = serves(authority.issue("behind", sans="DNS:api.example"))
    api = Api(COMPANY, wall, tunnel=tunnel)
    await api.listen()
    await api.hang_up()
    settings = {
        "api__url": "https://api.example",
        "api__proxy": f"http://user:proxy-password@127.0.0.1:{api.port}",
        "api__ca_file": str(authority.certificate),
    }
    async with trial(api=api, **settings) as t:
        assert [call.target for call in api.calls if call.header("Proxy-Authorization")] == [
            "CONNECT api.example:443"
        ] * api.connections
        async with t.fault():
            await api.hang_up()
            if case is not None:
                await api.listen()
                api.says(case)
            asked = len(api.calls)
            await t.polls(2)
            assert t.failed == {"proxy": 2}
            assert not [call for call in api.calls[asked:] if call.header("Authorization")]
        assert not [line for line in t.lines() if "proxy-password" in line]


@row("U22", slow=False, too_slow=True)
async def test_an_api_that_is_slow(case: bool) -> None:
    async with trial() as t, t.fault():

        async def slow(call: Call) -> None:
            await asyncio.sleep(5.0 if case else random.uniform(0.2, 5.0))  # noqa: S311

        t.api.delay = slow
        if case:
            t.api.simulator.page_size = 1
        began, polls = t.loop.time(), t.of("polls_total")
        await t.polls(3)
        assert t.failed == ({"deadline": 3} if case else {})
        assert t.of("polls_total") - polls <= (t.loop.time() - began) / 60 + 1
        assert case or t.of("polls_skipped_total") == 0


@row("U23")
async def test_an_hour_without_the_api_leaves_no_trace() -> None:
    """Afterwards the series are those of an exporter that has seen nothing of it."""
    async with trial() as t:
        async with t.fault():
            await t.api.hang_up()
            asked, polls = unanswered(t), t.of("polls_total")
            await asyncio.sleep(3600)
            polls, asked = t.of("polls_total") - polls, unanswered(t) - asked
            assert (polls, t.failed) == (60, {"connect": 60})
            assert asked <= polls + Retries.SAVED + Retries.SHARE * polls, "hardly more than one an interval"
            assert not [name for name in await t.scrape() if name.endswith("latency_seconds")]
        now = wall()
        t.api.simulator.clock = lambda: now
        await t.polls()
        api = Api(COMPANY, lambda: now)
        async with trial(api=api) as undisturbed:
            assert gauges(await t.scrape()) == gauges(await undisturbed.scrape())


def gauges(samples: dict[str, Any]) -> dict[str, Any]:
    """Return the per-session families."""
    names = [name for name in samples if name.startswith("thousandeyes_endpoint_")]
    kept = {name: samples[name] for name in names if "_site_" not in name and "_agent_" not in name}
    assert kept
    return kept


@row("U24")
async def test_half_of_all_requests_fail_and_nothing_is_lost() -> None:
    """A round counts as published if this or a later poll published it: the overlap reads it again."""
    async with trial() as t, t.fault():
        (poller,) = t.exporter.pollers.values()
        seen = set[int]()
        began, first = wall(), retries(t)
        requests = len(t.api.calls)
        t.api.fails("server_error=0.5")
        for _ in range(200):
            await asyncio.sleep(60)
            seen |= {user.round for user, _ in poller.result.pairs}
        world = t.api.simulator.world.sessions(1001, began, wall() - 600, wall())
        rounds = {session.round_id for session in world if session.listed}
        assert len(rounds) > 150
        assert len(rounds & seen) >= 0.95 * len(rounds)
        extra = retries(t) - first
        assert 0 < extra <= Retries.SAVED + Retries.SHARE * (len(t.api.calls) - requests - extra)


def retries(t: Trial) -> float:
    return retried(t, "server_error")
