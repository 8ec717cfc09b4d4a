"""The compose file: accepted by Docker Compose, secure, and its services find each other."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from system.servers import ROOT, environment, run

from exporter.settings import load

FOLDER = ROOT / "deploy/compose"
PROMETHEUS = yaml.safe_load((FOLDER / "prometheus.yml").read_text())


async def compose(*arguments: str, **variables: str) -> Any:
    """Return the configuration that Docker Compose resolves."""
    command = ("docker-compose", "--file", str(FOLDER / "compose.yaml"), *arguments, "config")
    variables = environment(**variables)
    assert await run(*command, "--quiet", env=variables) == ""  # no errors or warnings
    output = await run(*command, "--format=json", env=variables)
    return yaml.safe_load(output)


async def services() -> dict[str, Any]:
    """Return the services of all profiles."""
    config = await compose("--profile=demo", "--profile=account")
    return dict(config["services"])


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """Return the mounted files and folders of this repository by their path in the container."""
    binds = (volume for volume in service["volumes"] if volume["type"] == "bind")
    return {volume["target"]: Path(volume["source"]) for volume in binds}


@pytest.mark.parametrize(
    ("variables", "exporter"), [({}, "demo"), ({"COMPOSE_PROFILES": "account"}, "account")]
)
async def test_profile_selects_the_exporter(variables: dict[str, str], exporter: str) -> None:
    config = await compose(**variables)
    assert config["services"].keys() == {exporter, "prometheus", "alertmanager", "grafana"}


async def test_containers_are_hardened_and_have_health_checks() -> None:
    dockerfile = (ROOT / "Dockerfile").read_text()
    for name, service in (await services()).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.search(r":v?[0-9]+\.[0-9]+\.[0-9]+", service["image"]), name
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name
        checked_by_image = "build" in service and "HEALTHCHECK" in dockerfile
        assert "healthcheck" in service or checked_by_image, name
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume  # noqa: ASYNC240
                assert volume["read_only"] is True, volume
                assert volume["bind"]["create_host_path"] is False, volume


async def test_prometheus_scrapes_the_exporter_and_sends_alerts_to_alertmanager() -> None:
    found = await services()
    (job,) = PROMETHEUS["scrape_configs"]
    (alertmanagers,) = PROMETHEUS["alerting"]["alertmanagers"]
    (target,) = job["static_configs"][0]["targets"]
    (alertmanager,) = alertmanagers["static_configs"][0]["targets"]
    for name in ("demo", "account"):
        aliases = found[name]["networks"]["default"]["aliases"]
        assert target in {f"{each}:{found[name]['ports'][0]['target']}" for each in aliases}
    assert alertmanager == f"alertmanager:{found['alertmanager']['ports'][0]['target']}"


async def test_prometheus_accepts_the_mounted_configuration(tmp_path: Path) -> None:
    mounted = mounts((await services())["prometheus"])
    assert {Path(path).parent for path in mounted} == {Path("/etc/prometheus")}
    for path, source in mounted.items():
        (tmp_path / Path(path).name).write_text(source.read_text())
    assert "SUCCESS" in await run("promtool", "check", "config", str(tmp_path / "prometheus.yml"))


async def test_grafana_finds_data_source_and_dashboards() -> None:
    found = await services()
    mounted = mounts(found["grafana"])
    provisioning = mounted["/etc/grafana/provisioning"]
    text = (provisioning / "datasources/prometheus.yaml").read_text()
    url = urlsplit(yaml.safe_load(text)["datasources"][0]["url"])
    assert url.port == found[str(url.hostname)]["ports"][0]["target"]
    text = (provisioning / "dashboards/thousandeyes.yaml").read_text()
    folder = yaml.safe_load(text)["providers"][0]["options"]["path"]
    home = Path(found["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (mounted[folder] / home.name).is_file()


async def test_exporter_accepts_its_command_line_and_reads_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("secret-of-the-account")
    config = await compose("--profile=account", TOKEN_FILE=str(token), TOKEN_OWNER="1000:1000")
    account = config["services"]["account"]
    assert account["user"] == "1000:1000"
    (secret,) = account["secrets"]
    assert config["secrets"][secret["source"]]["file"] == str(token)
    command = [str(token) if word == secret["target"] else word for word in account["command"]]
    assert load(command, {}).settings.api.token_file == token
    assert load((await services())["demo"]["command"], {}).command == "demo"
    assert "secret-of-the-account" not in str(config)
