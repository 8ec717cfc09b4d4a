"""A server of bytes for what no well-behaved server does: it says what a script says, and notes what it was sent."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain, repeat

JSON = "application/json"


@dataclass
class Call:
    """One request, and the connection on which its answer goes."""

    head: bytes
    body: bytes
    connection: int
    """Number of the connection, from 0."""
    writer: asyncio.StreamWriter

    def header(self, name: str) -> str | None:
        """Return the value of a header."""
        for line in self.head.decode("latin-1").split("\r\n")[1:]:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return None

    @property
    def target(self) -> str:
        """Method and target of the request line."""
        return self.head.decode("latin-1").rpartition(" HTTP/")[0].partition(" HTTP/")[0]

    async def say(self, *pieces: bytes, every: float = 0.0) -> None:
        """Send bytes, a piece at a time."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(every)

    def reset(self) -> None:
        """Break the connection with a reset."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def close(self) -> None:
        """Hang up."""
        self.writer.close()


Script = bytes | Callable[[Call], Awaitable[None]]
"""What to answer: bytes, or whoever says them."""


@dataclass
class Raw:
    """A server that runs: where it is, and what it was sent."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    connections: int = 0

    @property
    def targets(self) -> list[str]:
        """What was asked for, in order."""
        return [call.target for call in self.calls]


Connected = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(connected: Connected, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Listen, and leave nothing behind: who still talks at the end is cut off. Yields the port."""
    tasks = set[asyncio.Task[None]]()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await connected(reader, writer)
        writer.transport.abort()

    server = await asyncio.start_server(accepted, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@asynccontextmanager
async def serving(*scripts: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Raw]:
    """Serve one script for each request, the last of them for ever; a connection lasts until a script ends it."""
    raw = Raw()
    each = chain(scripts[:-1], repeat(scripts[-1]))

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number, raw.connections = raw.connections, raw.connections + 1
        while True:
            call = Call(await reader.readuntil(b"\r\n\r\n"), b"", number, writer)
            call.body = await reader.readexactly(int(call.header("Content-Length") or 0))
            raw.calls.append(call)
            script = next(each)
            await (call.say(script) if isinstance(script, bytes) else script(call))

    async with listening(connected, tls) as port:
        raw.url = f"https://localhost:{port}" if tls else f"http://127.0.0.1:{port}"
        yield raw


def reply(body: bytes | str = b"{}", status: int = 200, content_type: str = JSON, **headers: str) -> bytes:
    """Write an answer that is as it should be; `Retry_After` is the header `Retry-After`."""
    body = body.encode() if isinstance(body, str) else body
    fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items() if value)
    return f"HTTP/1.1 {status} Whatever\r\n{lines}\r\n".encode() + body
