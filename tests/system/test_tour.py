"""The commands of docs/tour.md, as documented; the outage itself is not waited for."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from system.servers import EXPORTER, PATH, ROOT, environment, run, tool, until
from system.test_documented_commands import LOOPBACK_UP

BLOCK = re.compile(r"(<!-- keeps running -->\n)?```console\n\$ (.*?)^```$", re.M | re.S)
BLOCKS = BLOCK.findall((ROOT / "docs/tour.md").read_text())


def network(pid: int | str) -> Path:
    """Return the network namespace of a process."""
    return Path(f"/proc/{pid}/ns/net").readlink()


@asynccontextmanager
async def process(*command: str, path: str) -> AsyncIterator[asyncio.subprocess.Process]:
    quiet = asyncio.subprocess.DEVNULL
    running = await asyncio.create_subprocess_exec(
        *command, env=environment(PATH=path), cwd=ROOT, stdout=quiet, stderr=quiet
    )
    try:
        yield running
    finally:
        running.terminate()
        await running.wait()


async def test_commands_of_the_tour_work(tmp_path: Path) -> None:
    (tmp_path / "alertmanager").symlink_to(tool("prometheus-alertmanager"))
    path = f"{tmp_path}:{PATH}"
    texts = [(keeps, text.replace("/tmp/tour", f"{tmp_path}/tour")) for keeps, text in BLOCKS]  # noqa: S108
    demo, *servers = [text for keeps, text in texts if keeps]
    queries = [text for keeps, text in texts if not keeps]
    assert demo == "make demo\n"
    async with AsyncExitStack() as stack:
        exporter = (sys.executable, "-c", LOOPBACK_UP, *EXPORTER[1:], "demo")
        isolated = process(tool("unshare"), "--net", *exporter, path=path)
        pid = (await stack.enter_async_context(isolated)).pid
        inside = tool("nsenter"), f"--net=/proc/{pid}/ns/net", "bash", "-euo", "pipefail", "-c"

        async def is_isolated() -> bool:
            return network(pid) != network("self")

        await until(is_isolated)

        async def output(commands: str) -> str:
            commands = commands.replace("\n$ ", "\n")
            return await run(*inside, commands, cwd=ROOT, env=environment(PATH=path))

        for each in servers:
            await stack.enter_async_context(process(*inside, f"exec {each}", path=path))

        async def scraped() -> bool:
            shown = await output(f"({queries[0]}) || true")
            return bool(re.search(r"=> 1 @.*=> \d+ @", shown, re.DOTALL))

        await until(scraped, 90, 1)
        for each in queries:
            await output(each)
