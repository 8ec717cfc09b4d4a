"""What holds for the whole run: no secret is seen, and tests that hold a row of docs/faults.md are named by it.

    @pytest.mark.fault("X26")

puts the id of the row into the id of a test that stands outside tests/faults, unless the ids of its cases have it, and
into the table at the end.
"""

import re
from pathlib import Path
from typing import Any

import pytest
from canary import LOOKED, SEEN, look
from xdist.scheduler import LoadScopeScheduling

CONTAINERS = ("test_compose", "test_docs_commands", "test_image")
"""Files whose tests share the image that they build."""
ROWS: dict[str, tuple[bool, float]] = {}
"""Tests of rows of docs/faults.md: whether each passed, and its seconds."""


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "fault(*ids): the test holds these rows of docs/faults.md")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Put the id of a row into the id of its test."""
    cases = str([mark.args for mark in metafunc.definition.iter_markers("parametrize")])
    cases += str([mark.kwargs for mark in metafunc.definition.iter_markers("parametrize")])
    for mark in metafunc.definition.iter_markers("fault"):
        missing = [id_ for id_ in mark.args if f"{id_}-" not in cases]
        if missing:
            metafunc.parametrize((), [pytest.param(id="-".join(missing))])


class _Together(LoadScopeScheduling):  # type: ignore[misc]
    """Which tests share something, and so have to run in one process where several run at once."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        return "faults" if file.parent.name == "faults" else "containers" if file.stem in CONTAINERS else str(file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Together:
    """Run files side by side, and no file in two processes."""
    return _Together(config, log)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Look at what was captured, and put a row of docs/faults.md into the table."""
    for name, text in report.sections:
        look(name, text, report.nodeid)
    if row := re.search(r"\[([A-Z]\d\d(?:-[^\]]*)?)\]$", report.nodeid):
        passed, seconds = ROWS.get(row[1], (True, 0.0))
        ROWS[row[1]] = (passed and report.passed, seconds + report.duration)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let the run fail where a secret was seen; one of several processes tells the one that started it."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["canaries"] = (SEEN, LOOKED)
    if SEEN:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what another process has seen."""
    seen, looked = getattr(node, "workeroutput", {}).get("canaries", ((), {}))
    SEEN.extend(seen)
    for kind, size in looked.items():
        LOOKED[kind] = LOOKED.get(kind, 0) + size


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Write the table of faults; tell where secrets were looked for, and where they were seen."""
    if ROWS:
        terminalreporter.section("faults: id, passed, seconds")
        for id_, (passed, seconds) in sorted(ROWS.items()):
            terminalreporter.line(f"{id_:<40} {'yes' if passed else 'NO':<4} {seconds:6.2f}")
    if SEEN:
        terminalreporter.section("secrets that were seen", red=True)
        for each in dict.fromkeys(SEEN):
            terminalreporter.line(each)
    elif LOOKED:
        kinds = ", ".join(f"{kind} {size // 1024} kB" for kind, size in sorted(LOOKED.items()))
        terminalreporter.line(f"no secret in: {kinds}")
