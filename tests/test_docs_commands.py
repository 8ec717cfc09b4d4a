"""The commands that pages show: run as they stand there, or marked with what they need that is not here.

A mark is a line `<!-- needs: ... -->` before the block. Commands that ask the API ask the simulator, on a network of
their own, where every port is free; what a page calls docker is Podman, and the image that of tests/test_image.py.
"""

import asyncio
import os
import re
import shutil
import stat
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from deploying import IMAGE, PODMAN, RUN, TOOLS, build, done, program
from servers import EXPORTER, ROOT, clean_environment, finished, running

pytestmark = pytest.mark.timeout(900)
PAGES = [ROOT / f"docs/{name}.md" for name in ("compose", "docker", "kubernetes", "pip")]
NEEDS = {
    "Docker, and images from its registry",
    "a Kubernetes cluster",
    "a published image",
    "a release on PyPI",
}
"""What is not here. What is here, or could be, is no reason."""
API = "127.0.0.1:9352"
LOOPBACK_UP = (
    "import fcntl, socket; fcntl.ioctl(socket.socket(), 0x8914, b'lo'.ljust(16, b'\\0') + b'\\x41' + b'\\0' * 23)"
)
DOCKER = f"""#!/bin/bash
# What the tests have for `docker`: Podman, on the network that it is started in.
podman() {{ command {" ".join(PODMAN)} "$@"; }}
case $1 in
    build) podman tag {IMAGE} "$3" ;;
    compose) shift; exec docker-compose "$@" ;;
    run)
        shift
        kept=()
        while [ $# -gt 0 ]; do
            if [ "$1" = --publish ]; then shift 2; else kept+=("$1"); shift; fi
        done
        podman {" ".join(argument for argument in RUN if argument != "--rm")} --network=host \\
            --env=THOUSANDEYES_API_URL="$THOUSANDEYES_API_URL" "${{kept[@]}}" ;;
    *) podman "$@" ;;
esac
"""


@dataclass(frozen=True, slots=True)
class Block:
    """A block of commands, and what it needs; None for nothing."""

    page: Path
    line: int
    needs: str | None
    text: str

    @property
    def commands(self) -> str:
        """What is typed: lines behind a `$`, and those that continue them."""
        return "\n".join(re.findall(r"^\$ ((?:.*\\\n)*.*)$", self.text, re.MULTILINE))

    @property
    def answers(self) -> list[str]:
        """What the page says that the commands write."""
        return re.sub(r"^\$ (?:.*\\\n)*.*$", "", self.text, flags=re.MULTILINE).split("\n\n")[0].split()


def blocks(page: Path, language: str = "console") -> list[Block]:
    """Return the blocks of a page."""
    text = page.read_text()
    found = re.finditer(rf"(?:^<!-- needs: ([^\n]*) -->\n)?^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(page, text[: each.start()].count("\n") + 1, each[1], each[2]) for each in found]


ALL = [block for page in PAGES for block in blocks(page)]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of this repository, as a user has one, in which commands may write."""
    folder = tmp_path_factory.mktemp("copy") / "thousandeyes-exporter"
    ignored = shutil.ignore_patterns(
        ".*cache", ".git", ".venv", ".tools", ".image", ".hypothesis", "__pycache__", "tests"
    )
    shutil.copytree(ROOT, folder, ignore=ignored)
    return folder


@pytest.fixture
async def network() -> AsyncIterator[list[str]]:
    """A network of its own, with the simulator in it; what to put before a command that belongs there."""
    inside = [program("unshare"), "--net", sys.executable, "-c"]
    listening = f"import os, sys; {LOOPBACK_UP}; os.execv(sys.executable, sys.argv[1:])"
    simulate = [*EXPORTER, "--simulator.listen-address", API, "simulate"]
    async with running(*inside, listening, *simulate) as simulator:
        await simulator.said("listens")
        yield [program("nsenter"), f"--net=/proc/{simulator.pid}/ns/net"]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has Docker and an account."""
    shim = tmp_path / "bin/docker"
    shim.parent.mkdir()
    shim.write_text(DOCKER)
    shim.chmod(shim.stat().st_mode | stat.S_IXUSR)
    return clean_environment(
        PATH=os.pathsep.join([str(shim.parent), TOOLS]),
        HOME=str(tmp_path),
        PIPX_BIN_DIR=str(tmp_path / "pipx"),  # uv refuses to overwrite what pipx has put into ~/.local/bin
        UV_PYTHON_DOWNLOADS="never",
        PIP_NO_COMPILE="1",
        THOUSANDEYES_API_URL=f"http://{API}",
    )


def test_every_mark_is_one_of_those_that_are_known_and_stands_before_commands() -> None:
    """A mark is no way around a command that can be run."""
    marks = {block.needs for block in ALL} - {None}
    assert marks == NEEDS
    for page in PAGES:
        shown = [block for block in blocks(page) if block.needs]
        assert page.read_text().count("<!-- needs: ") == len(shown)


def test_every_block_of_commands_begins_with_one_and_every_other_block_is_read() -> None:
    """Nothing that looks like a command is in a block that no test knows."""
    for page in PAGES:
        languages = re.findall(r"^```(.+)$", page.read_text(), re.MULTILINE)
        assert set(languages) <= {"console", "yaml"}
        assert all(block.text.startswith("$ ") for block in blocks(page))
        assert all(yaml.safe_load(block.text) for block in blocks(page, "yaml"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
async def test_the_commands_of_a_page_do_what_it_says(
    page: Path, copy: Path, network: list[str], environment: dict[str, str]
) -> None:
    """One block after another, in a shell for each; the first line of every answer that the page shows is there."""
    if page.stem == "docker":
        await asyncio.to_thread(build)
    for block in blocks(page):
        if block.needs:
            continue
        outside = re.search(r"\b(pip|pipx|uv tool) install\b", block.commands)
        shell = ["bash", "-euo", "pipefail", "-c", block.commands]
        command = [*([] if outside else network), *shell]
        with (copy / ".typed").open("w+") as typed:
            typed.write("demo\n")
            typed.seek(0)
            code, output, errors = await finished(
                program(command[0]), *command[1:], seconds=300, cwd=copy, env=environment, stdin=typed
            )
        assert code == 0, f"{page.name}:{block.line}: exit {code}\n{block.commands}\n{output}{errors}"
        assert set(block.answers) <= set(output.split()), f"{page.name}:{block.line}\n{output}{errors}"


async def test_nothing_is_left_running() -> None:
    """Whatever a page starts, it stops."""
    assert await done(*PODMAN, "ps", "--quiet") == ""
