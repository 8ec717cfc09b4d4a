"""A real receiver has the same series from pushes with OTLP as from scrapes.

VictoriaMetrics stands for all of them, with the rules of Prometheus for names: Debian's Prometheus
does not receive OTLP.
"""

from pathlib import Path
from typing import Any

import yaml
from system import servers
from system.servers import until

from exporter.simulator import World

VOLATILE = "process_.+|python_gc_.+|thousandeyes_exporter_otlp_.+"
"""Metrics that change between a push and a scrape."""
TARGET = {"job", "instance", "service_name", "service_version", "service_instance_id"}
Series = dict[frozenset[tuple[str, str]], str]


def normalized(found: list[dict[str, Any]]) -> Series:
    """Return values by labels; a receiver writes `le` of OTLP as 1, and that of text is 1.0."""
    series: Series = {}
    for each in found:
        labels = {k: v for k, v in each["metric"].items() if k not in TARGET}
        if "le" in labels:
            labels["le"] = str(float(labels["le"]))
        series[frozenset(labels.items())] = each["value"][1]
    assert len(series) == len(found)
    return series


async def test_pushed_series_are_those_of_a_scrape(tmp_path: Path) -> None:
    source, target = (f"127.0.0.1:{servers.free_port()}" for _ in range(2))
    (tmp_path / "scrape.yml").write_text(yaml.safe_dump(servers.scrape_config(source)))
    settings = {
        "api__account_groups": "all",
        "otlp__endpoint": f"http://{target}/opentelemetry/v1/metrics",
        "otlp__interval": "2s",
        "poll__interval": "10m",
    }
    command = (
        "victoria-metrics",
        f"-storageDataPath={tmp_path / 'data'}",
        f"-httpListenAddr={target}",
        f"-promscrape.config={tmp_path / 'scrape.yml'}",
        "-promscrape.config.strictParse=false",
        "-opentelemetry.usePrometheusNaming",
        "-search.latencyOffset=0s",
        "-loggerLevel=ERROR",
    )
    world = World(agents=40, sites=8, account_groups=2)
    async with (
        servers.running(*command, address=target) as receiver,
        servers.simulator(world) as (_, api),
        servers.exporter(api, source, **settings),
    ):

        async def same() -> Series | None:
            selector = f'{{service_name="thousandeyes", __name__!~"{VOLATILE}"}}'
            pushed = normalized(await receiver.query(selector))
            selector = f'{{job="thousandeyes", __name__!~"up|scrape_.+|{VOLATILE}"}}'
            return pushed if pushed == normalized(await receiver.query(selector)) else None

        complete = f"count(thousandeyes_endpoint_agent_info) == {2 * len(world.agents)}"
        await until(lambda: receiver.query(f"{complete} and min(thousandeyes_up) == 1"), 60)
        assert len(await until(same, 60)) > 3000
