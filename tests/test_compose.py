"""The compose file: what Docker Compose says of it, and whether what it puts together fits together."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from deploying import done
from servers import ROOT, clean_environment

from exporter import __version__
from exporter.settings import load

FOLDER = ROOT / "deploy/compose"
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
CONFIG = "config", "--format=json"


async def compose(*arguments: str, **variables: str) -> Any:
    """Ask Docker Compose about the file, as a user has it, and return its answer."""
    file = str(FOLDER / "compose.yaml")
    return yaml.safe_load(await done("docker-compose", "--file", file, *arguments, env=clean_environment(**variables)))


async def services() -> dict[str, Any]:
    """Return all services, of all profiles."""
    found: dict[str, Any] = (await compose("--profile=demo", "--profile=account", *CONFIG))["services"]
    return found


def sources(service: dict[str, Any]) -> dict[str, Path]:
    """Return what is mounted from this machine, by the path inside."""
    binds = (volume for volume in service.get("volumes", []) if volume["type"] == "bind")
    return {volume["target"]: Path(volume["source"]) for volume in binds}


def exists(path: str) -> bool:
    """Tell whether there is such a file or folder."""
    return Path(path).exists()


async def test_docker_compose_has_nothing_to_say_against_the_file() -> None:
    """Neither an error nor a warning."""
    assert await compose("config", "--quiet") is None


@pytest.mark.parametrize(
    ("arguments", "variables", "exporter"),
    [
        ((), {}, "demo"),
        (("--profile=account",), {}, "account"),
        ((), {"COMPOSE_PROFILES": "account"}, "account"),
    ],
    ids=["nothing said", "a profile", "a variable"],
)
async def test_one_exporter_runs_and_it_is_the_demo_unless_told_otherwise(
    arguments: tuple[str, ...], variables: dict[str, str], exporter: str
) -> None:
    """Two of them would share a port and a name."""
    found = (await compose(*arguments, *CONFIG, **variables))["services"]
    assert set(found) == {exporter, "prometheus", "alertmanager", "grafana"}


async def test_every_container_is_confined_pinned_and_seen_by_this_machine_alone() -> None:
    """Read-only, no capabilities, no new privileges, a version, the loopback address."""
    for name, service in (await services()).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in service, name
        assert re.fullmatch(r"(docker\.io|ghcr\.io)/[a-z/-]+:v?[0-9]+\.[0-9]+\.[0-9]+\S*", service["image"]), name
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name


async def test_every_container_has_a_health_check() -> None:
    """Its own, or the one in the image of this project."""
    for name, service in (await services()).items():
        assert "healthcheck" in service or ("build" in service and "\nHEALTHCHECK " in DOCKERFILE), name


async def test_everything_that_is_mounted_exists_and_can_not_be_changed() -> None:
    """A folder that Docker makes where a file is missing would be no configuration."""
    for service in (await services()).values():
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert exists(volume["source"]), volume
                assert volume["read_only"] is True, volume
                assert volume["bind"]["create_host_path"] is False, volume


async def test_prometheus_finds_exporter_and_alertmanager_at_their_names_and_ports() -> None:
    """The targets are names in the network, and ports that the containers have."""
    found = await services()
    aliases = {alias: name for name in found for alias in (found[name]["networks"]["default"] or {}).get("aliases", [])}
    jobs = {job["job_name"]: job["static_configs"][0]["targets"] for job in PROMETHEUS["scrape_configs"]}
    managers = PROMETHEUS["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    for target in [*(target for targets in jobs.values() for target in targets), *managers]:
        host, port = target.split(":")
        service = found[aliases.get(host, host)]
        assert int(port) in [published["target"] for published in service["ports"]], target
    assert jobs["thousandeyes"] == ["exporter:9350"]
    for exporter in ("demo", "account"):
        assert found[exporter]["networks"]["default"]["aliases"] == ["exporter"]


async def test_prometheus_reads_the_rules_that_are_mounted(tmp_path: Path) -> None:
    """Prometheus itself accepts what lies in its folder then."""
    mounted = sources((await services())["prometheus"])
    for inside, source in mounted.items():
        assert inside.startswith("/etc/prometheus/")
        (tmp_path / Path(inside).name).write_text(source.read_text())
    assert {Path(inside).name for inside in mounted} == {"prometheus.yml", *PROMETHEUS["rule_files"]}
    assert "SUCCESS" in await done("promtool", "check", "config", str(tmp_path / "prometheus.yml"))


async def test_prometheus_has_the_configuration_of_the_project_and_other_addresses() -> None:
    """Nothing else differs from the file for one machine."""
    alone = (ROOT / "deploy/prometheus/prometheus.yml").read_text()
    renamed = alone.replace("localhost:9350", "exporter:9350").replace("localhost:9093", "alertmanager:9093")
    assert yaml.safe_load(renamed) == PROMETHEUS
    assert renamed != alone


async def test_grafana_finds_prometheus_and_its_dashboards_where_provisioning_says() -> None:
    """The data source is a container, the folder is mounted, the first page is in it."""
    found = await services()
    mounted = sources(found["grafana"])
    provisioning = mounted["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
    url = urlsplit(source["url"])
    assert url.port in [port["target"] for port in found[url.hostname or ""]["ports"]]
    (provider,) = yaml.safe_load((provisioning / "dashboards/thousandeyes.yaml").read_text())["providers"]
    dashboards = mounted[provider["options"]["path"]]
    home = Path(found["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == provider["options"]["path"]
    assert (dashboards / home.name).exists()


async def test_the_image_is_the_one_of_this_version() -> None:
    """And built from here where it is not published."""
    found = await services()
    for name in ("demo", "account"):
        assert found[name]["image"].endswith(f":{__version__}")
        assert Path(found[name]["build"]["context"]) == ROOT


async def test_the_exporter_accepts_its_command_line_and_finds_the_token(tmp_path: Path) -> None:
    """The token is the file that TOKEN_FILE names, owned by whom TOKEN_OWNER names, and never shown."""
    token = tmp_path / "token"
    token.write_text("canary")
    variables = {"TOKEN_FILE": str(token), "TOKEN_OWNER": "1000:1000"}
    found = await compose("--profile=account", *CONFIG, **variables)
    account = found["services"]["account"]
    assert account["user"] == "1000:1000"
    (secret,) = account["secrets"]
    assert found["secrets"][secret["source"]]["file"] == str(token)
    command = [str(token) if word == secret["target"] else word for word in account["command"]]
    assert load(command, {}).settings.api.token_file == token
    assert load((await services())["demo"]["command"], {}).settings.api.token_file is None
    assert "canary" not in str(found)
