"""The commands of docs/install.md, run as they are documented.

A comment `<!-- needs: ... -->` before a block names what tests do not have.
"""

import asyncio
import re
import shutil
import sys
import sysconfig
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from system.servers import EXPORTER, PATH, ROOT, environment, run, tool

PAGE = (ROOT / "docs/install.md").read_text()
BLOCK = re.compile(r"(?:^<!-- needs: ([^\n]*) -->\n)?^```console\n(.*?)^```$", re.M | re.S)
COMMAND = re.compile(r"^\$ ((?:.*\\\n)*.*\n)", re.M)
NEEDS = {"a container engine", "a Kubernetes cluster", "a published image", "a release on PyPI"}
NEEDS |= {"root and a machine that runs systemd"}
IGNORED = (".*cache", ".git", ".hypothesis", ".image", ".tools", ".venv", "__pycache__", "tests")
API = "127.0.0.1:9352"
LOOPBACK_UP = """
import fcntl, os, socket, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, b"\\x41"
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, b"lo".ljust(16, b"\\0") + IFF_UP + bytes(23))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@asynccontextmanager
async def private_network(*arguments: str) -> AsyncIterator[tuple[str, ...]]:
    """Run the exporter in a network namespace; yields what to put before other commands there."""
    process = await asyncio.create_subprocess_exec(
        *(tool("unshare"), "--net", sys.executable, "-c", LOOPBACK_UP, *EXPORTER[1:], *arguments),
        env=environment(),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout
        while b"Simulated API" not in await asyncio.wait_for(process.stdout.readline(), 30):
            assert process.returncode is None
        yield tool("nsenter"), f"--net=/proc/{process.pid}/ns/net"
    finally:
        process.terminate()
        await process.communicate()


async def test_commands_work_in_the_documented_order(tmp_path: Path) -> None:
    blocks = BLOCK.findall(PAGE)
    assert {needs for needs, _ in blocks} == NEEDS | {""}
    assert PAGE.count("<!-- needs: ") == sum(bool(needs) for needs, _ in blocks)
    copy, typed = tmp_path / "checkout", tmp_path / "stdin"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*IGNORED))
    typed.write_text("demo\n")
    # The pinned dependencies are on the path: pip verifies and keeps them, and downloads nothing.
    variables = environment(
        PATH=PATH,
        PYTHONPATH=sysconfig.get_path("purelib"),
        HOME=str(tmp_path),
        THOUSANDEYES_API_URL=f"http://{API}",
    )
    async with private_network("--simulator.listen-address", API, "simulate") as inside:
        for text in (text for needs, text in blocks if not needs):
            commands = "".join(COMMAND.findall(text)).replace("docker compose", "docker-compose")
            shell = (*inside, "bash", "-euo", "pipefail", "-c", commands)
            with typed.open() as stdin:
                output = await run(*shell, seconds=100, cwd=copy, env=variables, stdin=stdin)
            assert set(COMMAND.sub("", text).splitlines()) <= set(output.splitlines()), text
