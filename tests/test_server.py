"""Connections: who is heard, in what order, for how long, and who has to make room."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from pki import Authority, serves, trusts
from servers import ask, connect, logging_as, raw, read_reply, until

from exporter import server as room
from exporter.server import MAX_HEAD, MAX_HEADERS, Answer, Request, Server, said


@dataclass
class Place:
    """A server, and what it was asked."""

    server: Server
    address: str = ""
    asked: list[Request] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    answer: Callable[[Request], Answer] = lambda request: said(200, f"{request.method} {request.path}\n")


@asynccontextmanager
async def place(tls: ssl.SSLContext | None = None, **options: Any) -> AsyncIterator[Place]:
    def answers(request: Request) -> Answer | Awaitable[Answer]:
        found.asked.append(request)
        if request.path == "/broken":
            raise RuntimeError("a secret")
        return later(request) if request.path in ("/held", "/broken/later") else found.answer(request)

    async def later(request: Request) -> Answer:
        if request.path == "/broken/later":
            raise RuntimeError("a secret")
        await found.held.wait()
        return found.answer(request)

    found = Place(Server(answers, **options))
    host, port = await found.server.listen("127.0.0.1", 0, tls)
    found.address = f"http://{host}:{port}"
    try:
        yield found
    finally:
        await found.server.close(0.1)


async def test_requests_that_come_together_are_answered_in_their_order() -> None:
    async with place() as p:
        reader, writer = await connect(p.address)
        writer.write(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(500)))
        for number in range(500):
            assert (await read_reply(reader)).text == f"GET /{number}\n"
        writer.close()


async def test_who_sends_many_requests_keeps_nobody_waiting() -> None:
    async with place() as p:
        reader, writer = await connect(p.address)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5000)
        await until(lambda: p.asked)
        assert (await ask(p.address, "/other")).status == 200
        assert len(p.asked) < 4000
        writer.close()
        assert reader


async def test_a_request_may_come_in_any_pieces() -> None:
    async with place() as p:
        reader, writer = await connect(p.address)
        for byte in b"GET /in-pieces?x=1 HTTP/1.1\r\nHost: x\r\nAccept:  a\r\nACCEPT: b\r\n\r\n":
            writer.write(bytes([byte]))
            await writer.drain()
        assert (await read_reply(reader)).text == "GET /in-pieces\n"
        assert p.asked[0].all("accept") == ["a", "b"]
        assert p.asked[0].remote == "127.0.0.1"
        writer.close()


HOST = b"Host: x\r\n"


@pytest.mark.parametrize(
    ("line", "headers", "status"),
    [
        (b"GET http://x/metrics?y HTTP/1.1", HOST, b"200"),
        (b"GET HTTP://X HTTP/1.1", HOST, b"200"),
        (b"GET http://other/metrics HTTP/1.1", HOST, b"400"),
        (b"GET http://[::1/ HTTP/1.1", HOST, b"400"),
        (b"GET metrics HTTP/1.1", HOST, b"400"),
        (b"CONNECT x:1 HTTP/1.1", HOST, b"400"),
        (b"OPTIONS * HTTP/1.1", HOST, b"400"),
        (b"GET / HTTP/0.9", HOST, b"400"),
        (b"GET /", b"", b"400"),
        (b"GET / HTTP/2.0", HOST, b"400"),
        (b"PRI * HTTP/2.0", b"", b"400"),
        (b"GET / HTTP/1.1", b"", b"400"),
        (b"GET / HTTP/1.1", HOST + HOST, b"400"),
        (b"GET / HTTP/1.0", b"", b"200"),
        (b"GET / HTTP/1.1", HOST + b"Expect: something\r\n", b"417"),
        (b"GET / HTTP/1.1", HOST + b"Expect: 100-Continue\r\n", b"200"),
        (b"GET / HTTP/1.1", HOST + b"X: y\r\n" * (MAX_HEADERS - 2), b"200"),
        (b"GET / HTTP/1.1", HOST + b"X: y\r\n" * MAX_HEADERS, b"431"),
        (b"GET / HTTP/1.1", HOST + b"X: " + b"y" * MAX_HEAD + b"\r\n", b"431"),
        (b"GET /" + b"y" * MAX_HEAD + b" HTTP/1.1", HOST, b"431"),
        (b"GET / HTTP/1.1", HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", b"400"),
        (b"GET / HTTP/1.1", HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n", b"400"),
        (b"GET / HTTP/1.1", HOST + b"Content-Length: +5\r\n", b"400"),
        (b"GET / HTTP/1.1", HOST + b"Content-Length: 0x5\r\n", b"400"),
        (b"GET / HTTP/1.1", HOST + b"Transfer-Encoding: chunked, identity\r\n", b"400"),
        (b"GET / HTTP/1.1", HOST + b"A : b\r\n", b"400"),
        (b"GET / HTTP/1.1", HOST + b"A: b\r\n c\r\n", b"400"),
        (b"GET / HTTP/1.1", HOST + b"A: b\n", b"400"),
    ],
)
async def test_what_is_asked_in_an_odd_way_is_answered_once_and_no_byte_of_it_is_logged(
    line: bytes, headers: bytes, status: bytes
) -> None:
    async with place() as p:
        with logging_as() as lines:
            # What was refused is the last that is heard on the connection.
            again = b"GET /again HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            answers = await raw(p.address, line + b"\r\n" + headers + b"Connection: close\r\n\r\n" + again)
        assert answers.startswith(b"HTTP/1.1 " + status)
        assert answers.count(b"\r\nServer: ") == 1
        assert len(lines()) == (status != b"200")
        assert all("event=request_not_understood" in said and len(said) < 200 for said in lines())


async def test_a_request_before_one_that_is_none_is_answered_first() -> None:
    async with place() as p:
        answers = await raw(p.address, b"GET /good HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n")
        assert answers.index(b"GET /good") < answers.index(b"HTTP/1.1 400")


async def test_a_head_without_end_is_refused_before_it_is_long() -> None:
    async with place() as p:
        reader, writer = await connect(p.address)
        sent = 0
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
        while not reader._buffer and sent < 1_000_000:  # type: ignore[attr-defined]
            writer.write(b"y" * 1000)
            sent += 1000
            await asyncio.sleep(0.001)
        assert (await read_reply(reader)).status == 431
        assert sent < 200_000
        writer.close()


@pytest.mark.parametrize("path", ["/broken", "/broken/later"])
async def test_a_fault_of_ours_costs_one_answer_and_tells_nothing(path: str) -> None:
    with logging_as() as lines:
        async with place() as p:
            reply = await ask(p.address, path)
            assert reply.status == 500
            assert "secret" not in reply.text
            assert (await ask(p.address, "/")).status == 200
    assert len(lines()) == 1
    assert "event=request_crashed" in lines()[0]


async def test_an_answer_that_is_given_up_costs_its_connection_and_no_word() -> None:
    with logging_as() as lines:
        async with place() as p:
            reader, writer = await connect(p.address)
            writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
            (held,) = await until(lambda: [task for task in asyncio.all_tasks() if "_awaited" in repr(task)])
            held.cancel()
            assert await reader.read() == b""
            writer.close()
    assert lines() == []


async def test_who_was_idle_for_the_longest_makes_room() -> None:
    with logging_as() as lines:
        async with place(max_connections=4) as p:
            everyone = [await connect(p.address) for _ in range(3)]
            for reader, writer in (everyone[1], everyone[0]):
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                await read_reply(reader)
            assert (await ask(p.address)).status == 200  # in place of the one that never asked
            assert (await ask(p.address)).status == 200
            assert await everyone[2][0].read() == b""
            for reader, writer in everyone[:2]:
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await read_reply(reader)).status == 200
                writer.close()
            everyone[2][1].close()
    assert [line for line in lines() if "connections_at_limit" in line]
    assert len(lines()) == 1


async def test_where_everybody_is_busy_a_newcomer_is_sent_away() -> None:
    async with place(max_connections=3) as p:
        busy = [asyncio.create_task(ask(p.address, "/held")) for _ in range(2)]
        await until(lambda: len(p.asked) == 2)
        assert await raw(p.address, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") == b""
        p.held.set()
        assert [reply.status for reply in await asyncio.gather(*busy)] == [200, 200]
        assert (await ask(p.address)).status == 200


async def test_at_the_end_what_has_begun_is_answered_and_the_rest_hangs_up() -> None:
    async with place() as p:
        idle, hanging = await connect(p.address)
        busy = asyncio.create_task(ask(p.address, "/held"))
        await until(lambda: p.asked)
        closing = asyncio.create_task(p.server.close(5.0))
        assert await idle.read() == b""
        with pytest.raises(ConnectionRefusedError):
            await connect(p.address)
        assert not closing.done()
        p.held.set()
        assert (await busy).headers["connection"] == "close"
        await asyncio.wait_for(closing, 1.0)
        hanging.close()


async def test_the_end_does_not_wait_for_ever() -> None:
    async with place() as p:
        reader, writer = await connect(p.address)
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: p.asked)
        await asyncio.wait_for(p.server.close(0.1), 1.0)
        assert await reader.read() == b""
        writer.close()
        p.held.set()


@pytest.mark.parametrize("over_tls", [False, True])
async def test_a_long_body_is_sent_whole_however_slowly_it_is_read(
    over_tls: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = there = None
    if over_tls:
        authority = Authority(tmp_path, "an authority")
        identity = authority.issue("localhost", sans="DNS:localhost")
        here, there = serves(identity), trusts(authority)
    body = [bytes([number]) * 700_001 for number in range(8)]
    monkeypatch.setattr(room, "SLICE", 10_000)
    async with place(here) as p:
        p.answer = lambda _: Answer(200, {}, 8 * 700_001, [body[:3], [b""], body[3:]])
        options = {"ssl": there, "server_hostname": "localhost"} if there else {}
        reader, writer = await connect(p.address, **options)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"Content-Length: 5600008" in head
            got = b""
            while len(got) < 5_600_008:
                got += await reader.read(100_000)
                await asyncio.sleep(0.0005)
            assert got == b"".join(body)
        writer.close()
        await writer.wait_closed()


async def test_who_reads_a_long_answer_as_fast_as_it_is_sent_keeps_nobody_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "TURN", 0.0)
    loop, turns, seen = asyncio.get_running_loop(), 0, list[int]()

    def turned() -> None:
        nonlocal turns
        turns += 1
        if len(seen) < 100:
            loop.call_soon(turned)

    def body() -> Iterator[list[bytes]]:
        for _ in range(100):
            seen.append(turns)
            yield [b"x" * 1000]

    async with place() as p:
        p.answer = lambda _: Answer(200, {}, 100_000, body())
        loop.call_soon(turned)
        assert len((await ask(p.address)).body) == 100_000
    assert all(after > before for before, after in pairwise(seen[1:]))


async def test_who_waits_for_an_answer_is_told_of_its_end_once() -> None:
    ended: list[None] = []
    async with place() as p:
        p.answer = lambda _: Answer(200, {}, 3, [[b"abc"]], lambda: ended.append(None))
        await ask(p.address)
        assert len(ended) == 1
        await ask(p.address, method="HEAD")
        assert len(ended) == 2


async def test_who_says_nothing_more_is_still_answered() -> None:
    async with place() as p:
        reader, writer = await connect(p.address)
        writer.write(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        writer.write_eof()
        await until(lambda: p.asked)
        await asyncio.sleep(0.05)
        p.held.set()
        assert (await read_reply(reader)).text == "GET /held\n"
        assert await reader.read() == b""
        writer.close()


async def test_a_body_is_not_read_while_its_request_is_answered() -> None:
    async with place() as p:
        reader, writer = await connect(p.address)
        writer.write(b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n")
        await until(lambda: p.asked)
        sent = 0
        with suppress(TimeoutError):
            while sent < 100_000_000:
                writer.write(b"x" * 100_000)
                await asyncio.wait_for(writer.drain(), 0.3)
                sent += 100_000
        assert sent < 50_000_000  # what the buffers of the system hold
        p.held.set()
        with suppress(ConnectionError):
            assert (await read_reply(reader)).text == "POST /held\n"
        writer.transport.abort()


async def test_a_fault_amid_a_body_costs_one_connection() -> None:
    def broken() -> Iterator[list[bytes]]:
        yield [b"abc"]
        raise RuntimeError("a fault")

    with logging_as() as lines:
        async with place() as p:
            p.answer = lambda _: Answer(200, {}, 6, broken())
            with pytest.raises(asyncio.IncompleteReadError):
                await ask(p.address)
            p.answer = lambda _: said(200, "well\n")
            assert (await ask(p.address)).text == "well\n"
    assert "event=request_crashed" in lines()[0]
    assert len(lines()) == 1
