"""A real Prometheus scrapes the exporter and has every sample with its value."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from system import servers
from system.servers import until

from exporter.simulator import World


async def test_prometheus_ingests_every_sample(tmp_path: Path) -> None:
    address = f"127.0.0.1:{servers.free_port()}"
    async with (
        servers.simulator(World(agents=40, sites=8, account_groups=2)) as (_, api),
        servers.exporter(api, address, api__account_groups="all") as source,
        servers.prometheus(tmp_path, servers.scrape_config(address)) as target,
    ):
        complete = "count(thousandeyes_endpoint_agent_info) == 40 and min(thousandeyes_up) == 1"
        await until(lambda: target.query(complete))
        families = list(text_string_to_metric_families(await source.get("/metrics")))
        samples = [sample for family in families for sample in family.samples]
        assert await target.value("scrape_samples_scraped") == len(samples)
        name = "thousandeyes_endpoint_.+"
        series = await target.query(f'{{__name__=~"{name}"}}')
        found = {frozenset(each["metric"].items()): float(each["value"][1]) for each in series}
        of_target = {"job": "thousandeyes", "instance": address}
        assert found == {
            frozenset({"__name__": s.name, **s.labels, **of_target}.items()): s.value
            for s in samples
            if s.name.startswith("thousandeyes_endpoint_")
        }
        assert await target.query('{__name__=~".+_created"}') == []
        own = await target.get("/metrics")
        rejected = re.findall(r"^prometheus_target_scrapes_\w+_total (\d+)$", own, re.MULTILINE)
        assert len(rejected) > 5
        assert {*rejected} == {"0"}
        file = tmp_path / "metrics.txt"
        file.write_text(await source.get("/metrics"))
        with file.open() as text:  # names and help texts
            assert await servers.run("promtool", "check", "metrics", stdin=text) == ""
