"""What tests of the ways to run the exporter share: programs, YAML, containers."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from servers import ROOT, Program, clean_environment, finished, running

STORE = ROOT / ".image"
IMAGE = "localhost/thousandeyes-exporter:test"
PODMAN = (
    *("podman", "--root", f"{STORE}/store", "--runroot", f"{STORE}/run"),
    *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
)
# Limits of the machine that tests run on may be lower than those that a container gets by default.
RUN = ("run", "--rm", "--pull=never", "--no-healthcheck", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000")
CONFINED = ("--read-only", "--read-only-tmpfs=false", "--cap-drop=ALL", "--security-opt=no-new-privileges")
TOOLS = os.pathsep.join([str(Path(sys.executable).parent), str(ROOT / ".tools/usr/bin"), os.environ.get("PATH", "")])


def program(name: str) -> str:
    """Return the path of a program that tests need: a test that can not have it fails."""
    found = shutil.which(name, path=TOOLS)
    assert found, f"{name} is missing: `make test` installs it"
    return found


async def done(*command: str, seconds: float = 60.0, code: int = 0, **options: Any) -> str:
    """Run a program to its end, which has to be this exit code; return what it wrote, errors behind output."""
    found, output, errors = await finished(program(command[0]), *command[1:], seconds=seconds, **options)
    assert found == code, f"exit {found} of {' '.join(command)}\n{output}{errors}"
    return output + errors


def documents(text: str) -> list[dict[str, Any]]:
    """Return the documents of a YAML text, without the empty ones."""
    return [document for document in yaml.safe_load_all(text) if document]


@cache
def build() -> None:
    """Build the image, once in a run of the tests."""
    command = [str(ROOT / "tests/image.sh"), str(STORE)]
    assert subprocess.run(command, env=clean_environment(), check=False).returncode == 0, "the image can not be built"


async def inspected(image: str = IMAGE) -> dict[str, Any]:
    """Return what an image says of itself."""
    found: dict[str, Any] = json.loads(await done(*PODMAN, "image", "inspect", image))[0]
    return found


async def contained(*arguments: str, flags: tuple[str, ...] = (), code: int = 0) -> str:
    """Run the image to its end without a network; return what it wrote."""
    return await done(*PODMAN, *RUN, *CONFINED, "--network=none", *flags, IMAGE, *arguments, code=code)


class Container:
    """A running container of the image."""

    def __init__(self, name: str, process: Program) -> None:
        self.name = name
        self.process = process

    async def inside(self, *command: str, code: int = 0) -> str:
        """Run a program in it; return what it wrote."""
        return await done(*PODMAN, "exec", self.name, *command, code=code)

    async def stop(self) -> int:
        """Send SIGTERM, and SIGKILL ten seconds later; return the exit code."""
        await done(*PODMAN, "stop", "--time=10", self.name)
        return await self.process.wait()


@asynccontextmanager
async def container(*arguments: str, flags: tuple[str, ...] = ()) -> AsyncIterator[Container]:
    """Run the image as it is meant to be run: read-only, without capabilities; remove it at the end."""
    name = f"thousandeyes-{uuid.uuid4().hex[:12]}"
    async with running(*PODMAN, *RUN, *CONFINED, f"--name={name}", *flags, IMAGE, *arguments) as process:
        try:
            yield Container(name, process)
        finally:
            if process.process.returncode is None:
                await asyncio.shield(done(*PODMAN, "rm", "--force", "--time=0", name))
