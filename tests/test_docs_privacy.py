"""docs/privacy.md: every block of settings does what the page says, and what never leaves is nowhere."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from servers import NOW, ROOT, TOKEN, ask, exporting, finished, logging_as, simulated

from exporter.simulator import World

PAGE = (ROOT / "docs/privacy.md").read_text()
STEPS = dict(
    zip(re.findall(r"^### (\d)", PAGE, re.MULTILINE), re.findall(r"```yaml\n(.*?)```", PAGE, re.S), strict=True)
)
KEY_FILE = "/etc/thousandeyes-exporter/agent-names-key"
WORLD = World(agents=40, sites=8, account_groups=2)
PEOPLE = WORLD.people
NAMES = {person.name for person in PEOPLE}
OFFICE = {"mail.example.com", "calendar.example.com", "chat.example.com"}

Published = dict[str, set[str]]
"""Label → its values."""


@asynccontextmanager
async def following(step: str, tmp_path: Path, **changed: Any) -> AsyncIterator[tuple[str, Published]]:
    """Run an exporter with the settings of a step; yield what it publishes, as text and by label."""
    file = tmp_path / "settings.yml"
    file.write_text(STEPS[step].replace(KEY_FILE, str(tmp_path / "agent-names-key")))
    async with simulated(WORLD) as (_, api), exporting(api, config__file=file, **changed) as (_, address):
        text = (await ask(f"{address}/metrics")).text
        yield text, labels(text)


def labels(text: str) -> Published:
    """Return what stands in labels of metrics about sessions and agents."""
    found: Published = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples if family.name.startswith("thousandeyes_endpoint_") else ():
            for name, value in sample.labels.items():
                found.setdefault(name, set()).add(value)
    return found


async def test_what_the_page_lists_is_all_that_is_published(tmp_path: Path) -> None:
    STEPS["0"] = ""
    async with following("0", tmp_path) as (_, published):
        listed = set(re.findall(r"`(\w+)`", PAGE.partition("## What is published")[2].partition("\n## ")[0]))
        assert published.keys() - {"aid", "protocol", "le"} <= listed
        assert published["agent"] == {person.id for person in PEOPLE if person.aid == WORLD.groups[0].aid}
        assert published["agent_name"] < NAMES
        assert len(published["site"]) > 5


async def test_hashed_names_are_the_same_on_every_replica_and_need_the_key(tmp_path: Path) -> None:
    (command,) = re.findall(r"^\$ (.*)$", PAGE, re.MULTILINE)
    seen = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        assert await finished("bash", "-ec", command, cwd=tmp_path / folder) == (0, "", "")
        assert (tmp_path / folder / "agent-names-key").stat().st_mode & 0o777 == 0o600
    for folder in ("one", "one", "two"):
        async with following("1", tmp_path / folder) as (text, published):
            assert not [name for name in NAMES if name in text]
            assert all(re.fullmatch("[0-9a-f]{16}", name) for name in published["agent_name"])
            assert len(published["agent_name"]) == len(published["agent"])
            seen.append(published["agent_name"])
    assert seen[0] == seen[1]
    assert seen[0].isdisjoint(seen[2])


async def test_without_names_ids_and_locations_are_left(tmp_path: Path) -> None:
    async with following("2", tmp_path) as (text, published):
        assert not [name for name in NAMES if name in text]
        assert "agent_name" not in published
        assert len(published["agent"]) > 10
        assert published["location"]


async def test_grouped_sites_have_the_names_of_their_groups_alone(tmp_path: Path) -> None:
    async with following("3", tmp_path) as (text, published):
        assert published["site"] == {"office", "other"}
        assert "example.com" not in text
        assert published["agent"]


async def test_without_families_nothing_tells_of_an_agent_and_the_distributions_stay(tmp_path: Path) -> None:
    async with following("4", tmp_path) as (text, published):
        assert published.keys() == {"aid", "site", "protocol", "le"}
        assert published["site"] == {"office", "other"}
        assert not [person.id for person in PEOPLE if person.id in text]
        assert "thousandeyes_endpoint_site_latency_seconds_bucket{" in text
        assert "thousandeyes_endpoint_site_sessions_total{" in text


@pytest.mark.parametrize("version", ["v6", "v7"])
@pytest.mark.fault("X16")
async def test_what_never_leaves_is_on_no_page_and_in_no_log(version: str) -> None:
    sessions = [each for group in WORLD.groups for each in WORLD.sessions(group.aid, NOW - 900, NOW, NOW)]
    private = {person.user_name for person in PEOPLE} | {person.computer_name for person in PEOPLE}
    private |= {person.serial_number for person in PEOPLE} | {each.page_id for each in sessions}
    private |= {each.id for each in sessions} | {"permalink", "Example Office", "home-0"}
    private |= {text for each in sessions for text in (each.place.public_ip, each.place.ssid, each.place.bssid) if text}
    private |= {leg.target for each in sessions for leg in (each.destination, each.vpn, each.proxy) if leg}
    assert len(private) > 500
    with logging_as("debug") as lines:
        async with (
            simulated(WORLD) as (simulator, api),
            exporting(api, api__version=version, api__account_groups="all") as (_, address),
        ):
            (path, *_) = [request.path for request in simulator.requests if "agents" in request.path]
            listed = (await ask(api, f"{path}?aid=1001", Authorization=f"Bearer {TOKEN}")).text
            assert sum(each in listed for each in private) > 20, "or the API would not have told it"
            shown = [(await ask(f"{address}{path}", path)).text for path in ("/metrics", "/", "/-/ready")]
        logged = "\n".join(lines())
    assert not [each for each in private if any(each in text for text in (*shown, logged))]
    hosts = {each.site.host for each in sessions}
    assert not [each for each in {*NAMES, *hosts, *(person.id for person in PEOPLE)} if each in logged]
    assert not [each for each in {*NAMES, *(person.id for person in PEOPLE)} if each in shown[1]]
