"""What was published in the middle of every fault, scraped by a real Prometheus: it takes all of it."""

from pathlib import Path

import aiohttp
from aiohttp import web
from servers import running, scraped_lines, tool, until
from test_prometheus import Prometheus

from benchmarks.processes import free_port
from faults.conftest import PUBLISHED


async def test_prometheus_takes_what_was_published_during_every_fault(tmp_path: Path) -> None:
    """This test stands at the end of the run, and knows the faults that were part of it."""
    bodies = {str(number): text for number, text in enumerate(PUBLISHED.values())}
    names = list(PUBLISHED)

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(text=bodies[request.path[1:]], content_type="text/plain", charset="utf-8")

    runner = web.ServerRunner(web.Server(answer, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    here = "{}:{}".format(*runner.addresses[0][:2])
    targets = [f"  - {{targets: ['{here}'], labels: {{fault: '{it}', __metrics_path__: /{it}}}}}" for it in bodies]
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 5s, scrape_timeout: 5s}\nscrape_configs:\n- job_name: faults\n"
        f"  static_configs: {'' if targets else '[]'}\n" + "\n".join(targets) + "\n"
    )
    address = f"127.0.0.1:{free_port()}"
    flags = [f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'tsdb'}", f"--web.listen-address={address}"]
    async with running(tool("prometheus"), *flags, cwd=tmp_path) as program, aiohttp.ClientSession() as http:
        await program.said("Server is ready to receive web requests")
        prometheus = Prometheus(f"http://{address}", http)

        async def all_seen() -> bool:
            """Tell whether every text was scraped; the last that was found of each is kept."""
            up.update({names[int(labels["fault"])]: value for labels, value in await prometheus.query("up")})
            return up.keys() == set(names) and all(up.values())

        up: dict[str, float] = {}
        try:
            await until(all_seen, 60, 0.5)
        except AssertionError:
            assert [name for name in names if up.get(name) != 1.0] == []
        scraped = {labels["fault"]: value for labels, value in await prometheus.query("scrape_samples_scraped")}
        assert scraped == {number: len(scraped_lines(text)) for number, text in bodies.items()}
        own = await prometheus.own()
        assert not any(value for name, value in own.items() if "scrapes_" in name)
    await runner.cleanup()
