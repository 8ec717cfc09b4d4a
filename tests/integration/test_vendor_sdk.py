"""The vendor's SDK, whose models are strict, reads everything that the simulated API sends."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from thousandeyes_sdk.administrative.api.account_groups_api import AccountGroupsApi
from thousandeyes_sdk.core import ApiClient, Configuration
from thousandeyes_sdk.endpoint_agents.api.endpoint_agents_api import EndpointAgentsApi
from thousandeyes_sdk.endpoint_agents.models import ExpandEndpointAgentOptions
from thousandeyes_sdk.endpoint_test_results import models
from thousandeyes_sdk.endpoint_test_results.api.local_network_endpoint_test_results_api import (
    LocalNetworkEndpointTestResultsApi,
)
from thousandeyes_sdk.endpoint_test_results.api.real_user_endpoint_test_results_api import (
    RealUserEndpointTestResultsApi,
)

from exporter.simulator import Simulator, World

NOW = 1_795_012_350
START, END = (datetime.fromtimestamp(when, UTC) for when in (NOW - 900, NOW))
WORLD = World(agents=60, account_groups=2)
SESSIONS = list(WORLD.sessions(1001, NOW - 900, NOW, NOW))
EXPAND = [option for option in ExpandEndpointAgentOptions if option.value != "unknown"]
PROBES = list(WORLD.probes(1001, NOW - 900, NOW, NOW))


@pytest.fixture
async def sdk() -> AsyncIterator[ApiClient]:
    simulator = Simulator(WORLD, clock=lambda: NOW, page_size=20)
    url = await simulator.start()
    yield ApiClient(Configuration(host=f"{url}/v7", access_token="demo"))
    await simulator.stop()


async def listing(method: Callable[..., Any], **parameters: Any) -> list[Any]:
    """Return the records of all pages; the SDK is blocking, and keeps fields that it lacks."""
    records = await asyncio.to_thread(lambda: list(method(**parameters)))
    assert not [record.model_extra for record in records if record.model_extra]
    return records


async def test_user_sessions(sdk: ApiClient) -> None:
    method = RealUserEndpointTestResultsApi(sdk).filter_real_user_tests_results_paginated
    found = await listing(method, start_date=START, end_date=END)
    for theirs, ours in zip(found, (s for s in SESSIONS if s.listed), strict=True):
        assert (theirs.id, theirs.agent_id) == (ours.id, ours.agent.id)
        assert theirs.committed.timestamp() == ours.committed
        assert (theirs.visited_site, theirs.protocol) == (ours.site.host, ours.site.protocol)
        assert theirs.experience_score == ours.experience_score


async def test_network_sessions(sdk: ApiClient) -> None:
    method = RealUserEndpointTestResultsApi(sdk).filter_real_user_tests_network_results_paginated
    filters = models.RealUserEndpointTestResultRequestFilter(platform=["mac"])
    body = models.RealUserEndpointTestResultsRequest(search_filters=filters)
    options = {"real_user_endpoint_test_results_request": body}
    found = await listing(method, start_date=START, end_date=END, **options)
    expected = [s for s in SESSIONS if s.measured and s.agent.hardware["platform"] == "mac"]
    for theirs, ours in zip(found, expected, strict=True):
        assert theirs.id == ours.id
        for path in ("destination", "vpn", "proxy"):
            for field in ("target", "latency", "jitter", "loss"):
                value = getattr(getattr(ours, path), field, None)
                assert getattr(getattr(theirs, path), field, None) == value
        memory = theirs.system_metrics.physical_memory_used_bytes
        assert memory.std_dev == ours.system.physical_memory_used_bytes.std_dev


async def test_local_networks(sdk: ApiClient) -> None:
    api = LocalNetworkEndpointTestResultsApi(sdk)
    method = api.filter_local_networks_test_results_topologies_paginated
    found = await listing(method, start_date=START, end_date=END)
    for theirs, ours in zip(found, PROBES, strict=True):
        assert (theirs.agent_id, theirs.round_id) == (ours.agent.id, ours.date // 300 * 300)
        assert (theirs.type.value, theirs.target) == (ours.type, ours.ping.target)
        blocked, ping, rtt = theirs.is_icmp_blocked, theirs.icmp_ping, ours.ping.latency
        assert (ping.avg_rtt, ping.loss) == ((None, 100) if blocked else (rtt, ours.ping.loss))
        assert not blocked or theirs.tcp_connect.rtt > rtt
        assert bool(theirs.dns_server_test) == (ours.type == "dns")
        scores = (theirs.gateway_score, theirs.vpn_score, theirs.proxy_score)
        assert sum(map(bool, scores)) == (ours.type in {"gateway", "vpn", "proxy"})
        assert 0 <= theirs.connection_score.score <= 100 >= theirs.agent_score.score >= 0
    assert {row.type.value for row in found} == {"gateway", "vpn", "proxy", "dns", "unknown"}
    assert {row.is_icmp_blocked for row in found} == {True, False}


async def test_agents_and_account_groups(sdk: ApiClient) -> None:
    method = EndpointAgentsApi(sdk).get_endpoint_agents_paginated
    found = await listing(method, aid="1002", expand=EXPAND)
    for theirs, ours in zip(found, WORLD.agents[1::2], strict=True):
        assert (theirs.id, theirs.name, theirs.version) == (ours.id, ours.name, ours.version)
        assert theirs.platform.value == ours.hardware["platform"]
        assert NOW - 60 < theirs.last_seen.timestamp() <= NOW
        assert theirs.clients[0].user_profile.user_name == ours.user_name
        assert bool(theirs.vpn_profiles) == bool(ours.vpn(ours.network(NOW)))
    groups = await asyncio.to_thread(AccountGroupsApi(sdk).get_account_groups)
    assert {int(g.aid): g.account_group_name for g in groups.account_groups} == WORLD.groups
