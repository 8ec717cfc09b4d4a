"""The compose file: accepted by Docker Compose, secure, and its services find each other."""

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from system.servers import ROOT, environment, run

from exporter.settings import load

FOLDER = ROOT / "deploy/compose"


async def compose(*arguments: str, **variables: str) -> Any:
    """Return the configuration that Docker Compose resolves."""
    command = ("docker-compose", "--file", str(FOLDER / "compose.yaml"), *arguments, "config")
    variables = environment(**variables)
    assert await run(*command, "--quiet", env=variables) == ""  # no errors or warnings
    return yaml.safe_load(await run(*command, "--format=json", env=variables))


async def services() -> dict[str, Any]:
    """Return the services of all profiles."""
    return dict((await compose("--profile=demo", "--profile=account"))["services"])


def mounts(service: dict[str, Any]) -> dict[str, Path]:
    """Return the mounted files and folders of this repository by their path in the container."""
    binds = (volume for volume in service["volumes"] if volume["type"] == "bind")
    return {volume["target"]: Path(volume["source"]) for volume in binds}


async def test_containers_are_hardened_and_have_health_checks() -> None:
    for name, service in (await services()).items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.search(r":v?[0-9]+\.[0-9]+\.[0-9]+", service["image"]), name
        assert {port["host_ip"] for port in service["ports"]} == {"127.0.0.1"}, name
        assert "healthcheck" in service or "build" in service, name  # our image has one
        for volume in service.get("volumes", []):
            if volume["type"] == "bind":
                assert volume["read_only"] is True, volume
                assert volume["bind"]["create_host_path"] is False, volume


async def test_prometheus_finds_the_exporter_and_alertmanager(tmp_path: Path) -> None:
    found = await services()
    for path, source in mounts(found["prometheus"]).items():
        assert Path(path).parent == Path("/etc/prometheus")
        (tmp_path / Path(path).name).write_text(source.read_text())
    config = tmp_path / "prometheus.yml"
    assert "SUCCESS" in await run("promtool", "check", "config", str(config))
    loaded = yaml.safe_load(config.read_text())
    jobs = loaded["scrape_configs"], loaded["alerting"]["alertmanagers"]
    target, alertmanager = (job[0]["static_configs"][0]["targets"] for job in jobs)
    assert alertmanager == [f"alertmanager:{found['alertmanager']['ports'][0]['target']}"]
    for name in ("demo", "account"):
        aliases, port = found[name]["networks"]["default"]["aliases"], found[name]["ports"][0]
        assert target == [f"{each}:{port['target']}" for each in aliases]


async def test_grafana_finds_data_source_and_dashboards() -> None:
    found = await services()
    mounted = mounts(found["grafana"])
    sources, providers = (
        yaml.safe_load((mounted["/etc/grafana/provisioning"] / path).read_text())
        for path in ("datasources/prometheus.yaml", "dashboards/thousandeyes.yaml")
    )
    url = urlsplit(sources["datasources"][0]["url"])
    assert url.port == found[str(url.hostname)]["ports"][0]["target"]
    folder = providers["providers"][0]["options"]["path"]
    home = Path(found["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    assert str(home.parent) == folder
    assert (mounted[folder] / home.name).is_file()


async def test_the_default_is_the_demo_and_an_account_needs_a_token(tmp_path: Path) -> None:
    others = {"prometheus", "alertmanager", "grafana"}
    demo = (await compose())["services"]
    assert demo.keys() == {"demo", *others}
    assert load(demo["demo"]["command"], {}).command == "demo"
    token = tmp_path / "token"
    token.write_text("canary-of-the-account")
    variables = {"TOKEN_FILE": str(token), "TOKEN_OWNER": "1000:1000"}
    config = await compose(COMPOSE_PROFILES="account", **variables)
    assert config["services"].keys() == {"account", *others}
    account = config["services"]["account"]
    assert account["user"] == "1000:1000"
    (secret,) = account["secrets"]
    assert config["secrets"][secret["source"]]["file"] == str(token)
    command = [str(token) if word == secret["target"] else word for word in account["command"]]
    assert load(command, {}).settings.api.token_file == token
    assert "canary" not in str(config)
