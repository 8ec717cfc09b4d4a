"""The vendor's SDK, whose models are strict, reads everything that the simulated API sends."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from thousandeyes_sdk.administrative.api.account_groups_api import AccountGroupsApi
from thousandeyes_sdk.core import ApiClient, Configuration
from thousandeyes_sdk.endpoint_agents.api.endpoint_agents_api import EndpointAgentsApi
from thousandeyes_sdk.endpoint_agents.models import ExpandEndpointAgentOptions
from thousandeyes_sdk.endpoint_test_results import api, models

from exporter.simulator import Simulator, World

NOW = 1_795_012_350
WORLD = World(agents=60, account_groups=2)
SESSIONS = list(WORLD.sessions(1001, NOW - 900, NOW, NOW))
END = datetime.fromtimestamp(NOW, UTC)
RANGE = {"start_date": END - timedelta(seconds=900), "end_date": END}
MAC = models.RealUserEndpointTestResultRequestFilter(platform=["mac"])
FILTER = models.RealUserEndpointTestResultsRequest(search_filters=MAC)
EXPAND = [option for option in ExpandEndpointAgentOptions if option.value != "unknown"]
LISTINGS: dict[str, tuple[Any, dict[str, Any], str, list[str]]] = {
    "filter_real_user_tests_results_paginated": (
        *(api.RealUserEndpointTestResultsApi, RANGE),
        *("id", [s.id for s in SESSIONS if s.listed]),
    ),
    "filter_real_user_tests_network_results_paginated": (
        api.RealUserEndpointTestResultsApi,
        RANGE | {"real_user_endpoint_test_results_request": FILTER},
        *("id", [s.id for s in SESSIONS if s.measured and s.agent.hardware["platform"] == "mac"]),
    ),
    "filter_local_networks_test_results_topologies_paginated": (
        *(api.LocalNetworkEndpointTestResultsApi, RANGE),
        *("agent_id", [p.agent.id for p in WORLD.probes(1001, NOW - 900, NOW, NOW)]),
    ),
    "get_endpoint_agents_paginated": (
        *(EndpointAgentsApi, {"aid": "1002", "expand": EXPAND}),
        *("id", [agent.id for agent in WORLD.agents[1::2]]),
    ),
    "get_account_groups": (AccountGroupsApi, {}, "aid", [str(aid) for aid in WORLD.groups]),
}


def unknown(value: Any) -> list[str]:
    """Return the fields at any depth that the SDK does not know, which it keeps."""
    if isinstance(value, BaseModel):
        inner = [name for _, each in value for name in unknown(each)]
        return [*(value.model_extra or {}), *inner]
    return [name for each in value for name in unknown(each)] if isinstance(value, list) else []


@pytest.mark.parametrize("method", LISTINGS)
async def test_reads_all_records(method: str) -> None:
    type_, parameters, id_, expected = LISTINGS[method]
    simulator = Simulator(WORLD, clock=lambda: NOW, page_size=20)
    url = await simulator.start()
    client = type_(ApiClient(Configuration(host=f"{url}/v7", access_token="demo")))
    found = await asyncio.to_thread(lambda: getattr(client, method)(**parameters))
    records = await asyncio.to_thread(list, getattr(found, "account_groups", found))
    await simulator.stop()
    assert [getattr(record, id_) for record in records] == expected
    assert not unknown(records)
