"""The systemd units: accepted by systemd, sandboxed, and the exporter runs inside its sandbox."""

import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from system.servers import EXPORTER, ROOT, TOKEN, environment, free_port, run, running, simulator

from exporter.simulator import World

UNIT = ROOT / "deploy/systemd/thousandeyes-exporter.service"
INSTALL = ROOT / "docs/install.md"
INSTALLED = "/opt/thousandeyes-exporter/bin/thousandeyes-exporter"
CONFINED = (sys.executable, str(Path(__file__).with_name("confined.py")))
MAX_EXPOSURE = "15"
"""Of 100; `systemd-analyze security` has 10.0 at most."""


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    """Return the values of each key in the section Service."""
    section = UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Return copies of the unit and those of docs/install.md, with a command of this host."""
    documented = re.findall(r"```systemd\n# \S+/(\S+)\n(.*?)```", INSTALL.read_text(), re.DOTALL)
    assert len(documented) == 2
    paths = []
    for name, text in [(UNIT.name, UNIT.read_text()), *documented]:
        paths.append(tmp_path / name)
        paths[-1].write_text(text.replace(INSTALLED, sys.executable))
    return list(map(str, paths))


async def analyze(*arguments: str, **variables: str) -> str:
    return await run("systemd-analyze", *arguments, env=environment(**variables))


async def test_systemd_accepts_the_units(units: list[str], tmp_path: Path) -> None:
    arguments = ("verify", "--recursive-errors=yes", "--man=no", *units)
    # The colon at the end stands for the folders of the system.
    assert await analyze(*arguments, SYSTEMD_UNIT_PATH=f"{tmp_path}:") == ""


async def test_exposure_is_low(units: list[str]) -> None:
    await analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE}", units[0])


async def allowed(service: dict[str, list[str]]) -> str:
    """Return the system calls and address families that the unit allows, as JSON."""
    sets: dict[str, list[str]] = {}
    for line in (await analyze("syscall-filter", "--no-pager")).splitlines():
        word = line.partition("#")[0].strip()
        if word and not line.startswith(" "):
            sets[word] = members = []
        elif word:
            members.append(word)

    def calls(name: str) -> Iterator[str]:
        for member in sets.get(name, [name]):
            yield from calls(member) if member.startswith("@") else [member]

    first, second = service["SystemCallFilter"]
    denied = {call for name in second.removeprefix("~").split() for call in calls(name)}
    permitted = {*calls(first), *calls("@default")} - denied
    assert len(permitted) > 200
    families = service["RestrictAddressFamilies"][0].split()
    return json.dumps({"calls": sorted(permitted), "families": families})


async def test_exporter_runs_in_the_sandbox(service: dict[str, list[str]], tmp_path: Path) -> None:
    """Its command line works under the system call filter of the unit, and SIGTERM ends it."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (start,) = service["ExecStart"]
    command = start.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))
    program, *arguments = shlex.split(command)
    assert program == INSTALLED
    address = f"127.0.0.1:{free_port()}"
    sandbox = (*CONFINED, await allowed(service))
    async with simulator(World(agents=20, sites=4)) as (_, api):
        variables = environment(THOUSANDEYES_API_URL=api, THOUSANDEYES_WEB_LISTEN_ADDRESS=address)
        server = running(*sandbox, *EXPORTER, *arguments, address=address, env=variables)
        async with server as exporter:
            assert "thousandeyes_up{" in await exporter.get("/metrics")
        assert exporter.process.returncode == 0


@pytest.mark.parametrize(
    "code",
    [
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import os; os.nice(-1)",
    ],
    ids=["executable memory", "packet socket", "priority"],
)
async def test_the_sandbox_of_the_test_denies(code: str, service: dict[str, list[str]]) -> None:
    output = await run(*CONFINED, await allowed(service), sys.executable, "-c", code, code=1)
    assert "Operation not permitted" in output


async def test_invalid_settings_are_not_retried(service: dict[str, list[str]]) -> None:
    (code,) = service["RestartPreventExitStatus"]
    await run(*EXPORTER, "--poll.interval=soon", code=int(code))
    assert service["Restart"] == ["always"]
