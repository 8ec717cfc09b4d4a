"""What an exporter takes for the API: a pretend company, and at the same address whatever goes wrong."""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from urllib.parse import urlsplit

from raw import Call, Connected, Script
from servers import TOKEN

from exporter.simulator import Simulator, World, parse_faults

PAGE = 1000
LATENCY = 0.05
"""Seconds from a request to its answer."""
Chooser = Callable[[Call], Script | None]


class Api:
    """A port of its own, in front of the simulator.

    `stranger` takes whole connections, `choose` returns what is said instead of the simulator's answer, `alter` changes
    what the simulator says, and `simulator.faults` are what it does wrong itself. `calls` are all requests that came,
    with their connections. It is a proxy too: who sends CONNECT is led to the same port, over TLS.
    """

    def __init__(
        self,
        world: World,
        clock: Callable[[], float],
        tls: ssl.SSLContext | None = None,
        tunnel: ssl.SSLContext | None = None,
    ) -> None:
        """Make it; `tls`: listen with this certificate; `tunnel`: be a proxy, behind which this certificate is."""
        self.simulator = Simulator(world, clock=clock, token=TOKEN, rate_limit=1_000_000)
        self.calls: list[Call] = []
        self.connections = 0
        self.delay: Callable[[Call], Awaitable[None]] = _latency
        self.choose: Chooser = lambda _: None
        self.alter: Callable[[bytes], bytes] = bytes
        self.stranger: Connected | None = None
        self.port = 0
        self.tls = self._good_tls = tls
        self.tunnel = tunnel
        self._behind = ""
        self._server: asyncio.Server | None = None
        self._tasks = set[asyncio.Task[None]]()
        self._hole: list[socket.socket] = []

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}" if self.tls or self._good_tls else f"http://127.0.0.1:{self.port}"

    def times(self, since: int = 0) -> list[float]:
        """Return when requests came, Unix seconds of the API, from that number on."""
        return [call.time for call in self.calls[since:]]  # type: ignore[attr-defined]

    def says(self, script: Script) -> None:
        """Answer all requests with a script from now on."""
        self.choose = lambda _: script

    def fails(self, *faults: str) -> None:
        """Let the simulator do something wrong from now on, as `simulator.faults` has it."""
        self.simulator.faults = parse_faults(faults)

    async def heal(self) -> None:
        """Answer as it should be again."""
        self.choose = lambda _: None
        self.alter = bytes
        self.stranger = None
        self.delay = _latency
        self.simulator.page_size = PAGE
        self.fails()
        if self._server is None or self._hole or self.tls is not self._good_tls:
            self.tls = self._good_tls
            await self.hang_up()
            await self.listen()

    async def start(self) -> None:
        """Start the simulator, and listen."""
        self._behind = await self.simulator.start()
        await self.listen()

    async def stop(self) -> None:
        """Stop all of it."""
        await self.hang_up()
        await self.simulator.stop()

    async def listen(self) -> None:
        """Listen at the address."""
        self._server = await asyncio.start_server(
            self._accepted, "127.0.0.1", self.port, ssl=self.tls, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def hang_up(self) -> None:
        """Stop to listen, and cut off who is connected: the next one is refused."""
        for each in self._hole:
            each.close()
        self._hole.clear()
        if self._server:
            self._server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    async def swallow(self) -> None:
        """Let connections get no answer at all, not even a refusal: the queue of those who knock is full."""
        await self.hang_up()
        listening = socket.socket()
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", self.port))
        listening.listen(0)
        self._hole.append(listening)
        for _ in range(4):
            knocking = socket.socket()
            knocking.setblocking(False)
            with suppress(BlockingIOError):
                knocking.connect(("127.0.0.1", self.port))
            self._hole.append(knocking)

    async def present(self, tls: ssl.SSLContext | None) -> None:
        """Listen with another certificate, or without TLS."""
        await self.hang_up()
        self.tls = tls
        await self.listen()

    def _altered(self, data: bytes) -> bytes:
        return self.alter(data)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        number, self.connections = self.connections, self.connections + 1
        behind: list[asyncio.StreamWriter] = []
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            if self.stranger:
                await self.stranger(reader, writer)
            else:
                await self._answer(reader, writer, number, behind)
        for each in behind:
            each.transport.abort()
        writer.transport.abort()
        self._tasks.discard(task)

    async def _answer(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        number: int,
        behind: list[asyncio.StreamWriter],
    ) -> None:
        pumps: list[asyncio.Task[None]] = []
        try:
            while True:
                call = Call(await reader.readuntil(b"\r\n\r\n"), b"", number, writer)
                call.body = await reader.readexactly(int(call.header("Content-Length") or 0))
                call.time = self.simulator.clock()  # type: ignore[attr-defined]
                self.calls.append(call)
                await self.delay(call)
                script = self.choose(call)
                if script is not None:
                    await _until_gone(call.say(script) if isinstance(script, bytes) else script(call), reader)
                    continue
                if call.target.startswith("CONNECT "):
                    await call.say(b"HTTP/1.1 200 Connection established\r\n\r\n")
                    assert self.tunnel
                    await writer.start_tls(self.tunnel)
                    continue
                if not behind:
                    parts = urlsplit(self._behind)
                    back, forth = await asyncio.open_connection(parts.hostname, parts.port)
                    behind.append(forth)
                    pumps.append(asyncio.create_task(_pump(back, call, self._altered)))
                behind[0].write(call.head + call.body)
                await behind[0].drain()
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)


async def _latency(_: Call) -> None:
    await asyncio.sleep(LATENCY)


async def _until_gone(saying: Awaitable[None], reader: asyncio.StreamReader) -> None:
    """Say something for as long as somebody is there."""
    speech, hearing = asyncio.ensure_future(saying), asyncio.ensure_future(reader.read(1))
    try:
        await asyncio.wait((speech, hearing), return_when=asyncio.FIRST_COMPLETED)
    finally:
        hearing.cancel()
        if not speech.done():
            speech.cancel()
        await asyncio.gather(speech, hearing, return_exceptions=True)
    if not speech.cancelled() and (error := speech.exception()):
        raise error


async def _pump(back: asyncio.StreamReader, call: Call, alter: Callable[[bytes], bytes]) -> None:
    """Pass on what the simulator says, and how it ends."""
    try:
        while data := await back.read(1 << 16):
            await call.say(alter(data))
    except ConnectionResetError:
        call.reset()
    else:
        call.close()
