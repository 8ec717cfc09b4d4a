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
INSTALLED = "/opt/thousandeyes-exporter/bin/thousandeyes-exporter"
CONFINED = (sys.executable, str(Path(__file__).with_name("confined.py")))
SECTION = UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0]
MAX_EXPOSURE = "15"
"""Of 100; `systemd-analyze security` has 10.0 at most."""


def values(name: str) -> list[str]:
    """Return the values of a key in the section Service."""
    return re.findall(f"^{name}=(.*)$", SECTION, re.MULTILINE)


async def analyze(*arguments: str, **variables: str) -> str:
    return await run("systemd-analyze", *arguments, env=environment(**variables))


async def test_systemd_accepts_the_units_and_exposure_is_low(tmp_path: Path) -> None:
    """Those of docs/install.md, too; with a command of this host."""
    page = (ROOT / "docs/install.md").read_text()
    documented = re.findall(r"```systemd\n# \S+/(\S+)\n(.*?)```", page, re.DOTALL)
    assert len(documented) == 2
    texts = {UNIT.name: UNIT.read_text(), **dict(documented)}
    for name, text in texts.items():
        (tmp_path / name).write_text(text.replace(INSTALLED, sys.executable))
    units = [str(tmp_path / name) for name in texts]
    # The colon at the end stands for the folders of the system.
    arguments = ("verify", "--recursive-errors=yes", "--man=no", *units)
    assert await analyze(*arguments, SYSTEMD_UNIT_PATH=f"{tmp_path}:") == ""
    await analyze("security", "--offline=true", f"--threshold={MAX_EXPOSURE}", units[0])


async def sandbox() -> list[str]:
    """Return a command that runs other commands under the filters of the unit."""
    sets: dict[str, list[str]] = {}
    for line in (await analyze("syscall-filter", "--no-pager")).splitlines():
        if line.startswith(("@", " ")) and (word := line.partition("#")[0].strip()):
            if not line.startswith(" "):
                sets[word] = members = []
            else:
                members.append(word)

    def calls(*names: str) -> Iterator[str]:
        for name in names:
            yield from calls(*sets[name]) if name in sets else [name]

    allowed, denied = values("SystemCallFilter")
    permitted = {*calls(allowed, "@default")} - {*calls(*denied.removeprefix("~").split())}
    assert len(permitted) > 200
    families = values("RestrictAddressFamilies")[0].split()
    return [*CONFINED, json.dumps({"calls": sorted(permitted), "families": families})]


async def test_exporter_runs_in_the_sandbox(tmp_path: Path) -> None:
    """Its command line works under the system call filter of the unit, and SIGTERM ends it."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    (start,) = values("ExecStart")
    command = start.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))
    program, *arguments = shlex.split(command)
    assert program == INSTALLED
    address = f"127.0.0.1:{free_port()}"
    async with simulator(World(agents=20, sites=4)) as (_, api):
        variables = environment(THOUSANDEYES_API_URL=api, THOUSANDEYES_WEB_LISTEN_ADDRESS=address)
        command_line = (*await sandbox(), *EXPORTER, *arguments)
        async with running(*command_line, address=address, env=variables) as exporter:
            assert "thousandeyes_up{" in await exporter.get("/metrics")
        assert exporter.process.returncode == 0


@pytest.mark.parametrize(
    "code",
    ["mmap; mmap.mmap(-1, 4096, prot=6)", "socket; socket.socket(17, 3)", "os; os.nice(-1)"],
    ids=["writable and executable memory", "packet socket", "priority"],
)
async def test_the_sandbox_of_the_test_denies(code: str) -> None:
    output = await run(*await sandbox(), sys.executable, "-c", f"import {code}", code=1)
    assert "Operation not permitted" in output


def test_only_invalid_settings_are_not_retried() -> None:
    assert (values("Restart"), values("RestartPreventExitStatus")) == (["always"], ["2"])
