"""The image: what it says of itself, how large it is, and how it runs with nothing but what it needs."""

import json
import re
import time
import tomllib
from pathlib import Path

import pytest
from deploying import IMAGE, PODMAN, RUN, build, contained, container, done, inspected
from pki import Authority
from servers import ROOT, ask, scraped_lines, until

from benchmarks.processes import free_port
from exporter import NAME, __version__

pytestmark = pytest.mark.timeout(900)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
HASH = "$2y$10$X0h1gDsPszWURQaxFh.zoubFi6DXncSjhoQNJgRrnGs7EsimhC7zG"
"""Of the password `test`, as the documentation of the format has it."""
STRICT = {"client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "certificate"}
LARGEST = 150 * 1000 * 1000


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    build()


async def test_the_dockerfile_has_no_lint() -> None:
    """Not even of the kind that is only a matter of style."""
    assert await done("hadolint", "--failure-threshold=style", str(ROOT / "Dockerfile")) == ""


@pytest.mark.fault("X25")
async def test_the_image_says_what_it_is_and_asks_for_nothing() -> None:
    """Its labels are the project's own, its user is a number, and a signal reaches the exporter itself."""
    config = (await inspected())["Config"]
    labels = {name.removeprefix("org.opencontainers.image."): label for name, label in config["Labels"].items()}
    assert labels["version"] == __version__
    assert labels["title"] == PROJECT["name"] == NAME
    assert labels["description"] == PROJECT["description"]
    assert labels["licenses"] == PROJECT["license"]
    assert (ROOT / labels["documentation"].partition("/blob/main/")[2]).exists()
    assert re.fullmatch("[1-9][0-9]{4}:[1-9][0-9]{4}", config["User"])
    assert config["ExposedPorts"] == {"9350/tcp": {}}
    assert config["Entrypoint"] == [NAME]
    assert "Cmd" not in config or config["Cmd"] is None
    assert {"PYTHONDONTWRITEBYTECODE=1", "PYTHONUNBUFFERED=1"} <= set(config["Env"])


@pytest.mark.fault("X25")
async def test_the_image_is_small() -> None:
    """What it adds to its base is less than 150 MB."""
    sizes = {}
    for image in json.loads(await done(*PODMAN, "images", "--format=json")):
        sizes |= dict.fromkeys(image.get("Names") or [], image["Size"])
    base = re.findall("^FROM ([^ ]+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    assert sizes[IMAGE] - sizes[base] < LARGEST


@pytest.mark.fault("X25")
async def test_the_environment_holds_the_exporter_and_no_tools() -> None:
    """Neither what built it nor what installs, nothing that its user could change, or become somebody else by."""
    script = (
        "find /opt /usr -writable -not -type l; find / -xdev -type f -perm /6000; "
        "ls /opt/exporter/lib/python3*/site-packages; python -m pip"
    )
    shell = (*RUN, "--network=none", "--entrypoint=sh", IMAGE, "-c", script)
    found = (await done(*PODMAN, *shell, code=1)).splitlines()
    assert "No module named pip" in found[-1]
    assert "exporter" in found
    assert not {"hatchling", "pip", "setuptools"} & set(found)
    assert [line for line in found if line.startswith("/") and "pip" not in line] == []


@pytest.mark.fault("X25")
async def test_the_image_runs_as_any_user() -> None:
    """Some platforms give each project a user of its own."""
    assert await contained("--version", flags=("--user=1000660000:0",)) == f"{NAME} {__version__}\n"


async def test_without_a_token_the_exit_code_says_that_settings_are_wrong() -> None:
    """And the message what to do."""
    assert "api.token_file" in await contained(code=2)


@pytest.mark.fault("X25")
async def test_the_demo_is_scraped_and_stops_at_once_when_it_is_told() -> None:
    """Read-only, without capabilities, as its own user, at a port of its own; SIGTERM is no failure."""
    url = f"http://127.0.0.1:{free_port()}"
    address = f"--env=THOUSANDEYES_WEB_LISTEN_ADDRESS={url.removeprefix('http://')}"
    arguments = ("--simulator.listen-address", "127.0.0.1:0", "demo")
    async with container(*arguments, flags=("--network=host", address)) as demo:
        await demo.process.said("listening", 60)

        async def ready() -> bool:
            return (await ask(f"{url}/-/ready")).status == 200

        await until(ready, 60, every=0.2)
        scrape = await ask(f"{url}/metrics", Accept_Encoding="gzip")
        assert scrape.status == 200
        samples = scraped_lines(scrape.text)
        assert sum(line.startswith("thousandeyes_endpoint_sessions{") for line in samples) > 100
        assert (await demo.inside("id", "-u")).strip() == "65532"
        status = await demo.inside("cat", "/proc/1/status")
        assert re.findall("^Cap(?:Bnd|Eff|Prm):\t(.*)$", status, re.MULTILINE) == ["0" * 16] * 3
        assert "Read-only file system" in await demo.inside("touch", "/tmp/file", code=1)  # noqa: S108
        check = (await inspected())["Healthcheck"]["Test"]
        assert check[0] == "CMD"
        assert await demo.inside(*check[1:]) == ""
        assert "nothing here" in await demo.inside(*check[1:], "/nowhere", code=1)
        began = time.monotonic()
        assert await demo.stop() == 0
        assert time.monotonic() - began < 8


@pytest.mark.parametrize("clients", [{}, STRICT], ids=["a password", "a client's certificate"])
async def test_the_health_check_knows_port_and_protocol_and_says_what_is_wrong(
    clients: dict[str, str], tmp_path: Path
) -> None:
    """The default port, behind TLS and what it has not got; another port, that of the question alone, finds nobody."""
    authority = Authority(tmp_path, "authority")
    authority.issue("exporter", sans="DNS:exporter.example").key.chmod(0o644)
    users = {"prometheus": HASH}
    files = {"cert_file": "exporter.crt", "key_file": "exporter.key", **clients}
    (authority.folder / "web.yml").write_text(json.dumps({"tls_server_config": files, "basic_auth_users": users}))
    mounted = f"--volume={authority.folder}:/web:ro"
    async with container("--web.config-file=/web/web.yml", "demo", flags=("--network=none", mounted)) as demo:
        await demo.process.said("listening", 60)
        check = (await inspected())["Healthcheck"]["Test"][1:]
        assert await demo.inside(*check) == ""
        moved = ("exec", "--env=THOUSANDEYES_WEB_LISTEN_ADDRESS=127.0.0.1:9", demo.name, *check)
        assert "no answer" in await done(*PODMAN, *moved, code=1)
