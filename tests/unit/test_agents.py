"""The source of agents: information, connections, failures, and names."""

import asyncio
import hashlib
import hmac
from typing import Any

import pytest
from api_records import FakeApi, samples
from fake_clock import START, fake_clock, fake_time
from structlog.testing import capture_logs

from exporter.clock import ApiClock
from exporter.errors import PollError
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sources.agents import AgentsConfig, AgentsSource, agent_names
from exporter.sources.source import Context

BAD_REQUEST = PollError("protocol", "HTTP status 400", 400)


class Setup:
    """A source with given answers of the API."""

    def __init__(self, *answers: Any, accepts: Any = bool) -> None:
        self.api, self.metrics = FakeApi(), SelfMetrics(process=False)
        self.api.answers = list(answers)
        config = AgentsConfig(100.0, agent_names("plain"), accepts)
        context = Context(self.api, ApiClock(fake_clock()), self.metrics)
        self.source = AgentsSource("7", context, config)

    async def poll(self) -> dict[tuple[str, ...], float]:
        """Poll once and return the samples."""
        await self.source.poll()
        assert await self.source.refresh(polled=True)
        return samples(self.source.result.tables)


def agent(*interfaces: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"id": "a", "networkInterfaceProfiles": list(interfaces), **fields}


def interface(type_: str, *addresses: tuple[str | None, str | None], **fields: Any) -> Any:
    """Return a network interface, given pairs of address and gateway."""
    profiles = [{"ipAddress": ip, "gateway": gateway} for ip, gateway in addresses]
    return {"hardwareType": type_, "addressProfiles": profiles, **fields}


UP = ("10.0.0.2", "10.0.0.1")
WIFI = interface("wireless", UP, wirelessProfile={"rssi": -60})
CABLE = interface("ethernet", UP, ethernetProfile={"linkSpeed": 1000})
UNPLUGGED = interface("ethernet", UP, ethernetProfile={"linkSpeed": 0})
NO_GATEWAY = interface("ethernet", ("10.0.0.2", None), ("10.0.0.2", ""), (None, "10.0.0.1"))
INTERFACES = [
    ([WIFI, CABLE], "ethernet", {"link_speed_bytes_per_second": 125e6}),
    ([UNPLUGGED, WIFI], "wireless", {"wifi_signal_dbm": -60}),  # no link
    ([NO_GATEWAY, WIFI], "wireless", {"wifi_signal_dbm": -60}),
    ([NO_GATEWAY, UNPLUGGED], "ethernet", {"link_speed_bytes_per_second": 0}),
    ([interface("virtual", UP), interface("modem", UP), NO_GATEWAY], "modem", {}),
    ([interface("virtual"), interface("wireless", wirelessProfile=None)], "wireless", {}),
    ([{"hardwareType": None}], "", {}),
    ([], "", {}),
]


@pytest.mark.parametrize(("interfaces", "connection", "values"), INTERFACES)
@fake_time
async def test_the_interface_in_use_is_connected_and_has_a_link(interfaces, connection, values):
    found = await Setup([agent(*interfaces)]).poll()
    assert found.pop(("agent_info", "a", "", "", "", "", "")) == 1
    assert found.pop(("agent_connection_info", "a", connection, "", "")) == 1
    assert found == {(f"agent_{name}", "a"): value for name, value in values.items()}


@fake_time
async def test_an_agent_has_one_series_of_each_metric_and_one_for_each_failure():
    failures = [{"reasonCode": code} for code in ("b", "a", "b", None)]
    whole = agent(
        *(WIFI, CABLE), name=" anna ", platform="mac", version="1.2", osVersion="15",
        location={"locationName": "Zürich"}, lastSeen="2022-05-26T23:37:16Z",
        freeDiskSpaceNormalized=0.25, asnDetails={"asName": "ISP"},
        vpnProfiles=[{"vpnType": "zscaler"}, {"vpnType": "cisco"}],
        agentExplainabilityFailures=failures,
    )  # fmt: skip
    found = await Setup([whole, agent(id="b"), whole]).poll()
    assert {key: value for key, value in found.items() if key[1] == "a"} == {
        ("agent_info", "a", "anna", "mac", "1.2", "15", "Zürich"): 1,
        ("agent_connection_info", "a", "ethernet", "ISP", "cisco"): 1,
        ("agent_link_speed_bytes_per_second", "a"): 125e6,
        ("agent_measurement_failure", "a", "a"): 1,
        ("agent_measurement_failure", "a", "b"): 1,
        ("agent_last_seen_timestamp_seconds", "a"): 1653608236,
        ("agent_disk_free_ratio", "a"): 0.25,
    }
    assert len(found) == 9


@fake_time
async def test_interfaces_and_vpns_are_asked_for_until_the_api_rejects_that():
    setup = Setup([agent()], BAD_REQUEST, [agent()], BAD_REQUEST)
    with capture_logs() as logs:
        await setup.poll()
        await setup.poll()
        with pytest.raises(PollError, match="400"):
            await setup.poll()
    expanded = {"expand": "networkInterfaceProfiles,vpnProfiles"}
    assert [each.query for each in setup.api.requests] == [expanded, expanded, {}, {}]
    assert {(each.aid, each.priority, each.body) for each in setup.api.requests} == {("7", 1, None)}
    assert [(log["event"], log["log_level"]) for log in logs] == [
        ("agents_not_expanded", "warning")
    ]


@fake_time
async def test_the_last_complete_listing_of_accepted_agents_stays_published():
    async def endless(*_: Any) -> Any:
        await asyncio.Event().wait()
        yield

    setup = Setup([*(agent(id=x) for x in "cab"), {}], accepts=lambda id_: id_ != "b")
    assert {key[1] for key in await setup.poll()} == {"a", "c"}
    labels = {"aid": "7", "source": "agents", "reason": "missing_field"}
    name = "thousandeyes_exporter_records_rejected_total"
    assert setup.metrics.registry.get_sample_value(name, labels) == 1
    published, setup.api.pages = setup.source.result, endless
    with pytest.raises(PollError) as failure:
        await setup.source.poll()
    assert (failure.value.reason, asyncio.get_running_loop().time() - START) == ("deadline", 95)
    assert not await setup.source.refresh(polled=False)
    assert (setup.source.result, published.complete) == (published, True)


def test_names_are_published_hashed_or_hidden():
    digest = hmac.new("a long secret ü".encode(), b"anna", hashlib.sha256).hexdigest()
    for mode, expected in {"plain": "anna", "off": "", "hashed": digest[:16]}.items():
        published = agent_names(mode, "a long secret ü")
        assert (published("anna"), published("")) == (expected, "")  # no name has no hash
