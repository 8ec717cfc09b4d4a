"""The container image: its metadata, size and contents, and how it runs without any privileges."""

import asyncio
import json
import re
import subprocess
import time
import tomllib
import uuid
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import bcrypt
import pki
import pytest
import yaml
from system.servers import ROOT, Server, environment, free_port, run, tool, until

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
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MAX_SIZE = 150_000_000
"""Bytes that the image adds to its base."""


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    subprocess.run([str(ROOT / "tests/system/image.sh"), str(STORE)], check=True)


async def inspect() -> dict[str, Any]:
    output = await run(*PODMAN, "image", "inspect", IMAGE)
    return dict(json.loads(output)[0])


async def health_check() -> list[str]:
    """Return the command of the health check."""
    kind, *command = (await inspect())["Healthcheck"]["Test"]
    assert kind == "CMD"
    return command


class Container:
    """A running container."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.process = process

    async def execute(self, *command: str, flags: tuple[str, ...] = (), code: int = 0) -> str:
        """Run a program in the container; return its output and errors."""
        return await run(*PODMAN, "exec", *flags, self.name, *command, code=code)

    async def is_healthy(self) -> bool:
        """Run the health check as a container engine does."""
        assert self.process.returncode is None, f"exit code {self.process.returncode}"
        command = (*PODMAN, "exec", self.name, *await health_check())
        check = await asyncio.create_subprocess_exec(tool(command[0]), *command[1:], stderr=DEVNULL)
        return await check.wait() == 0


@asynccontextmanager
async def demo(*arguments: str, flags: tuple[str, ...]) -> AsyncIterator[Container]:
    """Run the demo in a container from when it is healthy."""
    name = f"thousandeyes-{uuid.uuid4().hex[:12]}"
    command = (*PODMAN, *RUN, *flags, f"--name={name}", IMAGE, *arguments, "demo")
    process = await asyncio.create_subprocess_exec(
        tool(command[0]), *command[1:], env=environment(), stdout=DEVNULL
    )
    try:
        container = Container(name, process)
        await until(container.is_healthy, 60)
        yield container
    finally:
        await run(*PODMAN, "rm", "--force", "--ignore", "--time=0", name)
        await process.wait()


async def test_dockerfile_has_no_lint() -> None:
    assert await run("hadolint", "--failure-threshold=style", str(ROOT / "Dockerfile")) == ""


async def test_metadata_is_that_of_the_project() -> None:
    config = (await inspect())["Config"]
    labels = {name.rpartition(".")[2]: label for name, label in config["Labels"].items()}
    assert labels["title"] == PROJECT["name"] == NAME
    assert labels["version"] == __version__
    assert labels["description"] == PROJECT["description"]
    assert labels["licenses"] == PROJECT["license"]
    assert (ROOT / labels["documentation"].partition("/blob/main/")[2]).exists()
    assert re.fullmatch("[1-9][0-9]{4}:[1-9][0-9]{4}", config["User"])
    assert config["ExposedPorts"] == {"9350/tcp": {}}
    assert config["Entrypoint"] == [NAME]
    assert config.get("Cmd") is None


async def test_image_is_small() -> None:
    images = json.loads(await run(*PODMAN, "images", "--format=json"))
    sizes = {name: image["Size"] for image in images for name in image.get("Names") or []}
    base = re.findall("^FROM ([^ ]+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    assert sizes[IMAGE] - sizes[base] < MAX_SIZE


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


@pytest.mark.parametrize(
    ("flags", "arguments", "code", "text"),
    [
        (("--user=1000660000:0",), ("--version",), 0, f"{NAME} {__version__}"),
        ((), (), 2, "api.token_file"),
    ],
    ids=["any user", "no token"],
)
async def test_command(
    flags: tuple[str, ...], arguments: tuple[str, ...], code: int, text: str
) -> None:
    command = (*PODMAN, *RUN, "--network=none", *flags, IMAGE, *arguments)
    assert text in await run(*command, code=code)


async def test_demo_runs_without_privileges_and_stops_at_sigterm() -> None:
    address = f"127.0.0.1:{free_port()}"
    arguments = (f"--web.listen-address={address}", "--simulator.listen-address=127.0.0.1:0")
    async with (
        demo(*arguments, flags=("--network=host",)) as container,
        aiohttp.ClientSession(f"http://{address}") as http,
    ):
        server = Server(http, container.process)
        await until(server.is_ready)
        text = await server.get("/metrics")
        assert text.count("\nthousandeyes_endpoint_sessions{") > 100
        assert (await container.execute("id", "-u")).strip() == "65532"
        status = await container.execute("cat", "/proc/1/status")
        assert re.findall("^Cap(?:Bnd|Eff|Prm):\t(.*)$", status, re.MULTILINE) == ["0" * 16] * 3
        output = await container.execute("touch", "/opt/file", code=1)
        assert "Read-only file system" in output
        start = time.monotonic()
        await run(*PODMAN, "stop", "--time=10", container.name)
        assert await container.process.wait() == 0
        assert time.monotonic() - start < 8


@pytest.mark.parametrize("client_certificates", [False, True])
async def test_health_check_uses_the_address_and_protocol_of_the_exporter(
    client_certificates: bool, tmp_path: Path
) -> None:
    authority = pki.Authority(tmp_path)
    authority.issue("exporter", sans="DNS:exporter.example").key.chmod(0o644)
    tls = {"cert_file": "exporter.crt", "key_file": "exporter.key"}
    if client_certificates:
        tls |= {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "certificate"}
    users = {"prometheus": bcrypt.hashpw(b"password", bcrypt.gensalt(10)).decode()}
    config = {"tls_server_config": tls, "basic_auth_users": users}
    (authority.folder / "web.yml").write_text(yaml.safe_dump(config))
    flags = ("--network=none", f"--volume={authority.folder}:/web:ro")
    async with demo("--web.config-file=/web/web.yml", flags=flags) as container:
        variable = ("--env=THOUSANDEYES_WEB_LISTEN_ADDRESS=127.0.0.1:9",)
        assert "refused" in await container.execute(*await health_check(), flags=variable, code=1)
