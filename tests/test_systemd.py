"""The unit for systemd: what systemd says of it, and what the exporter does with what the unit gives and takes."""

import json
import os
import re
import shlex
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import free_port
from tests.servers import EXPORTER, ROOT, TOKEN, ask, finished, running, simulated, tool, until

UNIT = ROOT / "deploy/systemd/thousandeyes-exporter.service"
PAGE = (ROOT / "docs/systemd.md").read_text()
INSTALLED = "/opt/thousandeyes-exporter/bin/thousandeyes-exporter"
COMMAND = str(Path(sys.executable).with_name("thousandeyes-exporter"))


@pytest.fixture(scope="module")
def service() -> dict[str, list[str]]:
    """The settings of the section `Service`, each with all its values."""
    section = UNIT.read_text().partition("[Service]")[2].partition("[Install]")[0]
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", section, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The unit, in a folder of its own, with the path to the command as it is here."""
    text = UNIT.read_text()
    assert text.count(INSTALLED) == 1
    path = tmp_path / UNIT.name
    path.write_text(text.replace(INSTALLED, COMMAND))
    return path


async def analyze(*arguments: str, units: Path | None = None) -> tuple[int, str]:
    """Run systemd-analyze, perhaps from a folder it was unpacked into; return exit code and all that it wrote."""
    program = Path(tool("systemd-analyze"))
    unpacked = program.parent.parent.parent
    libraries = [str(path.parent) for path in unpacked.glob("usr/lib/*/systemd/libsystemd-shared-*.so")]
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        # An empty path at the end stands for those of the system.
        "SYSTEMD_UNIT_PATH": f"{units}:{unpacked / 'lib/systemd/system'}:" if units else "",
    }
    code, output, errors = await finished(str(program), *arguments, env=environment)
    return code, output + errors


async def test_systemd_has_nothing_to_say_against_the_unit(installed: Path) -> None:
    """Every key is known, every value is understood, and the program is where the unit says."""
    said = await analyze("verify", "--recursive-errors=yes", "--man=no", str(installed), units=installed.parent)
    assert said == (0, "")


async def test_systemd_notices_a_misspelt_key(tmp_path: Path) -> None:
    """So the test above would."""
    misspelt = tmp_path / "misspelt.service"
    misspelt.write_text(f"[Service]\nExecStart={COMMAND}\nNoMorePrivileges=yes\n")
    code, said = await analyze("verify", "--recursive-errors=yes", "--man=no", str(misspelt), units=tmp_path)
    assert code != 0
    assert "NoMorePrivileges" in said


@pytest.mark.fault("X27")
async def test_the_service_is_exposed_as_little_as_may_be(installed: Path) -> None:
    """At most 1.5 of 10, as systemd counts."""
    code, said = await analyze("security", "--offline=true", "--threshold=15", str(installed))
    assert code == 0, said
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert exposure
    assert f"exposure level of {exposure[1]}" in PAGE


async def allowed(service: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the system calls and address families that the unit allows."""
    _, listed = await analyze("syscall-filter", "--no-pager")
    sets: dict[str, list[str]] = {}
    for line in listed.splitlines():
        word = line.strip().partition("#")[0].strip()
        if word and not line.startswith(" "):
            sets[word] = current = []
        elif word:
            current.append(word)

    def calls(name: str) -> Iterator[str]:
        for member in sets.get(name, [name]) if name.startswith("@") else [name]:
            yield from calls(member) if member.startswith("@") else [member]

    first, second = service["SystemCallFilter"]
    refused = {call for name in second.removeprefix("~").split() for call in calls(name)}
    given = set(calls(first)) | set(calls("@default"))
    assert second.startswith("~")
    assert len(given - refused) > 200
    return {"calls": sorted(given - refused), "families": service["RestrictAddressFamilies"][0].split()}


@pytest.mark.fault("X27")
async def test_the_exporter_works_with_what_the_unit_leaves_it(service: dict[str, list[str]], tmp_path: Path) -> None:
    """Its command line, its settings, its system calls; and SIGTERM ends it in time, with exit code 0."""
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    port = free_port()
    async with simulated() as (_, url):
        page = re.search(r"```ini\n(.*?)```", PAGE, re.DOTALL)
        assert page
        environment = dict(line.split("=", 1) for line in page[1].splitlines() if line and not line.startswith("#"))
        environment |= {
            "CREDENTIALS_DIRECTORY": str(tmp_path),
            "THOUSANDEYES_API_URL": url,
            "THOUSANDEYES_WEB_LISTEN_ADDRESS": f"127.0.0.1:{port}",
        }
        (line,) = service["ExecStart"]
        program, *arguments = [
            re.sub(r"\$\{(\w+)\}", lambda match: environment[match[1]], word) for word in shlex.split(line)
        ]
        assert program == INSTALLED
        filters = json.dumps(await allowed(service))
        command = (sys.executable, str(ROOT / "tests/confined.py"), filters, *EXPORTER, *arguments)
        kept = {name: value for name, value in os.environ.items() if not name.startswith("THOUSANDEYES_")}
        async with running(*command, env={**kept, **environment}) as exporter:
            await exporter.said("listening")
            await until(lambda: is_ready(f"http://127.0.0.1:{port}"))
            scrape = await ask(f"http://127.0.0.1:{port}/metrics")
            assert scrape.status == 200
            assert "thousandeyes_up{" in scrape.text
            began = time.monotonic()
            assert await exporter.stop() == 0
        (patience,) = service["TimeoutStopSec"]
        assert time.monotonic() - began < int(patience.removesuffix("s"))


async def is_ready(address: str) -> bool:
    return (await ask(f"{address}/-/ready")).status == 200


async def test_the_confinement_of_the_test_above_confines(service: dict[str, list[str]]) -> None:
    """Memory that is writable and executable, and a packet socket, are refused."""
    for attempt in (
        "import mmap; mmap.mmap(-1, 4096, prot=mmap.PROT_WRITE | mmap.PROT_EXEC)",
        "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)",
        "import os; os.nice(-1)",
    ):
        filters = json.dumps(await allowed(service))
        command = (sys.executable, str(ROOT / "tests/confined.py"), filters, sys.executable, "-c", attempt)
        code, _, errors = await finished(*command)
        assert (code, "Operation not permitted" in errors) == (1, True), errors


async def test_wrong_settings_end_it_with_the_code_that_is_not_tried_again(service: dict[str, list[str]]) -> None:
    """Everything else is tried for ever."""
    code, _, _ = await finished(*EXPORTER, "--poll.interval=soon")
    assert [str(code)] == service["RestartPreventExitStatus"]
    assert service["Restart"] == ["always"]


def test_every_command_of_the_page_says_whether_it_is_executed() -> None:
    """A reader knows what was tried, and what needs a machine that these tests do not have."""
    blocks = re.findall(r"^([^\n]*)\n\n```console\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == PAGE.count("```console")
    marks = {"executed by the tests": True, "needs root and a machine that runs systemd": False}
    executed: list[str] = []
    for before, block in blocks:
        (mark,) = [mark for mark in marks if before.endswith(f"({mark}):")]
        executed += re.findall(r"^\$ (.*)$", block, re.MULTILINE) if marks[mark] else []
    assert executed == [
        f"systemd-analyze verify --recursive-errors=yes --man=no /etc/systemd/system/{UNIT.name}",
        f"systemd-analyze security --offline=true --threshold=15 /etc/systemd/system/{UNIT.name}",
    ]


def test_the_page_puts_things_where_the_unit_looks_for_them(service: dict[str, list[str]]) -> None:
    """Token, settings and program have one path each."""
    assert service["LoadCredential"] == ["token:/etc/thousandeyes-exporter/token"]
    assert service["EnvironmentFile"] == ["-/etc/thousandeyes-exporter/environment"]
    for path in ("/etc/thousandeyes-exporter/token", "/etc/thousandeyes-exporter/environment", Path(INSTALLED).parent):
        assert str(path) in PAGE
