"""The container image: its metadata, size and contents, and how it runs without any privileges."""

import asyncio
import json
import mmap
import re
import socket
import subprocess
import uuid
from asyncio.subprocess import DEVNULL
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bcrypt
import pki
import pytest
import yaml
from system.servers import ROOT, free_port, run, running, tool, until

from exporter import NAME, __version__

pytestmark = pytest.mark.timeout(900)

STORE = ROOT / ".image"
IMAGE = "localhost/thousandeyes-exporter:test"
PODMAN = (
    *("podman", "--root", f"{STORE}/store", "--runroot", f"{STORE}/run"),
    *("--cgroup-manager", "cgroupfs", "--runtime", "runc"),
)
RUN = (
    *("run", "--rm", "--pull=never", "--no-healthcheck", "--read-only", "--read-only-tmpfs=false"),
    *("--cap-drop=ALL", "--security-opt=no-new-privileges"),
    # The limits of the host may be lower than the defaults for containers.
    *("--ulimit=nofile=1024:1024", "--ulimit=nproc=1000:1000"),
)
UNIT = ROOT / "deploy/systemd/thousandeyes-exporter.service"
MAX_SIZE = 150_000_000
"""Bytes that the image adds to its base."""


@pytest.fixture(scope="module", autouse=True)
def image() -> Any:
    """Build the image, and return its description."""
    subprocess.run([str(ROOT / "tests/system/image.sh"), str(STORE)], check=True)
    return json.loads(subprocess.check_output([*PODMAN, "image", "inspect", IMAGE]))[0]


@pytest.fixture
def name() -> str:
    """Return a new name of a container."""
    return f"thousandeyes-{uuid.uuid4().hex[:12]}"


def health_check(image: Any) -> list[str]:
    kind, *command = image["Healthcheck"]["Test"]
    assert kind == "CMD"
    return list(command)


async def test_dockerfile_has_no_lint() -> None:
    assert await run("hadolint", "--failure-threshold=style", str(ROOT / "Dockerfile")) == ""


async def test_metadata_is_that_of_the_project_and_the_image_is_small(image: Any) -> None:
    config = image["Config"]
    labels = {name.rpartition(".")[2]: label for name, label in config["Labels"].items()}
    assert (labels["title"], labels["version"]) == (NAME, __version__)
    assert (ROOT / labels["documentation"].partition("/blob/main/")[2]).exists()
    assert re.fullmatch("[1-9][0-9]{4}:[1-9][0-9]{4}", config["User"])
    assert config["ExposedPorts"] == {"9350/tcp": {}}
    assert (config["Entrypoint"], config.get("Cmd")) == ([NAME], None)
    base = re.findall("^FROM ([^ ]+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    size = json.loads(await run(*PODMAN, "image", "inspect", base))[0]["Size"]
    assert image["Size"] - size < MAX_SIZE


async def test_image_has_no_installers_writable_files_or_setuid_programs() -> None:
    script = (
        "find /opt /usr -writable -not -type l; find / -xdev -type f -perm /6000; "
        "ls /opt/exporter/lib/python3*/site-packages; python -m pip"
    )
    shell = ("--network=none", "--entrypoint=sh", IMAGE, "-c", script)
    lines = (await run(*PODMAN, *RUN, *shell, code=1)).splitlines()
    assert "No module named pip" in lines[-1]
    assert "exporter" in lines
    assert not {"hatchling", "pip", "setuptools"} & set(lines)
    assert [line for line in lines if line.startswith("/") and "pip" not in line] == []


async def test_runs_as_any_user_and_reports_invalid_settings() -> None:
    flags = ("--network=none", "--user=1000660000:0")
    assert "api.token_file" in await run(*PODMAN, *RUN, *flags, IMAGE, code=2)


async def seccomp_profile() -> str:
    """Return the restrictions of the systemd unit on system calls as a profile of containers."""
    output = await run("systemd-analyze", "syscall-filter", "--no-pager")
    sets = {
        name: re.findall(r"^ +([@\w-]+)$", members, re.MULTILINE)
        for name, members in re.findall(r"^(@\S+)\n((?: .*\n)+)", output, re.MULTILINE)
    }

    def calls(*names: str) -> Iterator[str]:
        for name in names:
            yield from calls(*sets[name]) if name in sets else [name]

    unit = UNIT.read_text()
    assert "MemoryDenyWriteExecute=yes" in unit
    first, second = re.findall("^SystemCallFilter=~?(.*)$", unit, re.MULTILINE)
    permitted = {*calls(first, "@default")} - {*calls(*second.split())}
    rules: list[tuple[list[str], dict[str, Any]]] = [
        (["mmap", "mprotect"], {"index": 2, "value": mmap.PROT_EXEC, "op": "SCMP_CMP_MASKED_EQ"}),
        (["mmap"], {"index": 2, "value": mmap.PROT_WRITE, "op": "SCMP_CMP_MASKED_EQ"}),
    ]
    for family in re.findall("AF_[A-Z0-9]+", unit.partition("RestrictAddressFamilies=")[2]):
        value = getattr(socket, family)
        rules.append((["socket"], {"index": 0, "value": value, "op": "SCMP_CMP_EQ"}))
    allowed = [{"names": [*permitted - {"socket", "mmap", "mprotect"}]}]
    allowed += [{"names": names, "args": [condition]} for names, condition in rules]
    syscalls = [{**each, "action": "SCMP_ACT_ALLOW"} for each in allowed]
    return json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": syscalls})


async def test_demo_runs_without_privileges_and_stops_at_sigterm(
    image: Any, name: str, tmp_path: Path
) -> None:
    """It runs under the system call filter of the systemd unit, too."""
    profile = tmp_path / "seccomp.json"
    profile.write_text(await seccomp_profile())
    address, execute = f"127.0.0.1:{free_port()}", (*PODMAN, "exec", name)
    limits = ("--network=host", f"--security-opt=seccomp={profile}", f"--name={name}")
    flags = (f"--web.listen-address={address}", "--simulator.listen-address=127.0.0.1:0", "demo")
    command = (*PODMAN, *RUN, *limits, IMAGE, *flags)
    async with running(*command, address=address, seconds=60) as server:
        text = await server.get("/metrics")
        assert text.count("\nthousandeyes_endpoint_sessions{") > 100
        await run(*execute, *health_check(image))
        status = await run(*execute, "cat", "/proc/1/status")
        ids = re.findall("^(?:Uid|Cap(?:Bnd|Eff|Prm)):\t(\\w+)", status, re.MULTILINE)
        assert ids == ["65532", *["0" * 16] * 3]
        for code, message in (
            ("open('/opt/file', 'w')", "Read-only file system"),
            ("import mmap; mmap.mmap(-1, 4096, prot=6)", "Operation not permitted"),
            ("import socket; socket.socket(socket.AF_NETLINK)", "Operation not permitted"),
        ):
            assert message in await run(*execute, "python", "-c", code, code=1)
    assert server.process.returncode == 0


@pytest.mark.parametrize("client_certificates", [False, True])
async def test_health_check_uses_the_address_and_protocol_of_the_exporter(
    client_certificates: bool, image: Any, name: str, tmp_path: Path
) -> None:
    authority = pki.Authority(tmp_path)
    authority.issue("exporter", sans="DNS:exporter.example").key.chmod(0o644)
    tls = {"cert_file": "exporter.crt", "key_file": "exporter.key"}
    if client_certificates:
        tls |= {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "certificate"}
    users = {"prometheus": bcrypt.hashpw(b"password", bcrypt.gensalt(10)).decode()}
    config = {"tls_server_config": tls, "basic_auth_users": users}
    (authority.folder / "web.yml").write_text(yaml.safe_dump(config))
    flags = ("--detach", "--network=none", f"--volume={authority.folder}:/web:ro")
    command = (IMAGE, "--web.config-file=/web/web.yml", "demo")
    await run(*PODMAN, *RUN, *flags, f"--name={name}", *command)

    async def is_healthy() -> bool:
        check = (tool("podman"), *PODMAN[1:], "exec", name, *health_check(image))
        return await (await asyncio.create_subprocess_exec(*check, stderr=DEVNULL)).wait() == 0

    try:
        await until(is_healthy, 60)
        elsewhere = ("exec", "--env=THOUSANDEYES_WEB_LISTEN_ADDRESS=127.0.0.1:9", name)
        assert "refused" in await run(*PODMAN, *elsewhere, *health_check(image), code=1)
    finally:
        await run(*PODMAN, "rm", "--force", "--time=0", name)
