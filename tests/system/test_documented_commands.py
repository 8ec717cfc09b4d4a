"""The commands of docs/install.md, run as they are documented.

A comment `<!-- needs: ... -->` before a block names what tests do not have.
"""

import asyncio
import re
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from system.servers import EXPORTER, PATH, ROOT, environment, run, tool

PAGE = (ROOT / "docs/install.md").read_text()
NEEDS = {
    "a container engine",
    "a Kubernetes cluster",
    "a published image",
    "a release on PyPI",
    "root and a machine that runs systemd",
}
IGNORED = (".*cache", ".git", ".hypothesis", ".image", ".tools", ".venv", "__pycache__", "tests")
API = "127.0.0.1:9352"
LOOPBACK_UP = """
import fcntl, os, socket, sys
SIOCSIFFLAGS, IFF_UP = 0x8914, b"\\x41"
fcntl.ioctl(socket.socket(), SIOCSIFFLAGS, b"lo".ljust(16, b"\\0") + IFF_UP + bytes(23))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Block:
    """A block of commands."""

    line: int
    needs: str
    text: str

    @property
    def commands(self) -> str:
        commands = "\n".join(re.findall(r"^\$ ((?:.*\\\n)*.*)$", self.text, re.MULTILINE))
        return commands.replace("docker compose", "docker-compose")

    @property
    def output(self) -> list[str]:
        """Lines that the commands write."""
        return re.sub(r"^\$ (?:.*\\\n)*.*\n", "", self.text, flags=re.MULTILINE).splitlines()


BLOCKS = [
    Block(PAGE[: match.start()].count("\n") + 1, match[1] or "", match[2])
    for match in re.finditer(
        r"(?:^<!-- needs: ([^\n]*) -->\n)?^```console\n(.*?)^```$", PAGE, re.M | re.S
    )
]


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


def test_requirements_of_blocks_are_known() -> None:
    assert {block.needs for block in BLOCKS} - {""} == NEEDS
    assert PAGE.count("<!-- needs: ") == sum(bool(block.needs) for block in BLOCKS)


@pytest.mark.timeout(600)
async def test_commands_work_in_the_documented_order(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*IGNORED))
    variables = environment(PATH=PATH, HOME=str(tmp_path), THOUSANDEYES_API_URL=f"http://{API}")
    async with private_network("--simulator.listen-address", API, "simulate") as inside:
        for block in (each for each in BLOCKS if not each.needs):
            outside = "pip install" in block.commands
            shell = ("bash", "-euo", "pipefail", "-c", block.commands)
            typed = tmp_path / "stdin"
            typed.write_text("demo\n")
            with typed.open() as stdin:
                options = {"seconds": 300, "cwd": copy, "env": variables, "stdin": stdin}
                output = await run(*(() if outside else inside), *shell, **options)
            assert set(block.output) <= set(output.splitlines()), f"install.md:{block.line}"
