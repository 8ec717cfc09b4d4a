"""The systemd units: accepted by systemd, and sandboxed.

tests/system/test_image.py runs the exporter under their restrictions on system calls.
"""

import re
import shlex
import sys
from pathlib import Path

from system.servers import ROOT, environment, run

from exporter.settings import load

UNIT = ROOT / "deploy/systemd/thousandeyes-exporter.service"
INSTALLED = "/opt/thousandeyes-exporter/bin/thousandeyes-exporter"
MAX_EXPOSURE = "15"
"""Of 100; `systemd-analyze security` has 10.0 at most."""


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


def test_the_unit_passes_the_token_and_retries_all_but_invalid_settings(tmp_path: Path) -> None:
    unit = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE))
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    command = unit["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))
    program, *arguments = shlex.split(command)
    assert program == INSTALLED
    assert load(arguments, {}).settings.api.token_file == token
    assert (unit["Restart"], unit["RestartPreventExitStatus"]) == ("always", "2")
