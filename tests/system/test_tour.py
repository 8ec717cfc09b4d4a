"""The commands of docs/tour.md, with a scrape every second; the outage is not waited for."""

import asyncio
import re
from asyncio.subprocess import DEVNULL
from contextlib import AsyncExitStack
from pathlib import Path

from system.servers import PATH, ROOT, RULES, accelerate, environment, run, tool, until
from system.test_documented_commands import private_network

BLOCK = re.compile(r"(<!-- keeps running -->\n)?```console\n\$ (.*?)^```$", re.M | re.S)
PAGE = (ROOT / "docs/tour.md").read_text()


async def test_commands_of_the_tour_work(tmp_path: Path) -> None:
    (tmp_path / "alertmanager").symlink_to(tool("prometheus-alertmanager"))
    path = f"{tmp_path}:{PATH}"
    shipped, fast = RULES.with_name("prometheus.yml"), tmp_path / "prometheus.yml"
    fast.write_text(accelerate(shipped.read_text()).replace(RULES.name, str(RULES)))
    page = PAGE.replace("/tmp/tour", f"{tmp_path}/tour")  # noqa: S108
    blocks = BLOCK.findall(page.replace(str(shipped.relative_to(ROOT)), str(fast)))
    demo, *servers = [text for keeps, text in blocks if keeps]
    queries = [text for keeps, text in blocks if not keeps]
    assert demo == "make demo\n"
    async with private_network("demo") as inside, AsyncExitStack() as stack:
        shell = *inside, "bash", "-euo", "pipefail", "-c"

        async def output(commands: str) -> str:
            commands = commands.replace("\n$ ", "\n")
            return await run(*shell, commands, cwd=ROOT, env=environment(PATH=path))

        for each in servers:
            process = await asyncio.create_subprocess_exec(
                *shell, f"exec {each}", env=environment(PATH=path), cwd=ROOT, stdout=DEVNULL
            )
            stack.push_async_callback(process.wait)
            stack.callback(process.terminate)

        async def scraped() -> bool:
            shown = await output(f"({queries[0]}) || true")
            return bool(re.search(r"=> 1 @.*=> \d+ @", shown, re.DOTALL))

        await until(scraped, 90, 1)
        for each in queries:
            await output(each)
