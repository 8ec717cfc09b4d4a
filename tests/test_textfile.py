"""`once --output`, as node_exporter's textfile collector and a real Prometheus read it."""

import asyncio
import re
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from servers import EXPORTER, ROOT, TOKEN, clean_environment, finished, running, simulated, tool
from test_prometheus import Prometheus, calculated, differences, scraping
from test_systemd import COMMAND, INSTALLED, analyze

from benchmarks.processes import free_port
from exporter.simulator import World, parse_faults

WORLD = World(agents=60, sites=10)
NAME = "thousandeyes.prom"


async def once(api: str, file: Path) -> int:
    """Run the command as cron would; return its exit code."""
    environment = clean_environment(THOUSANDEYES_TOKEN=TOKEN, THOUSANDEYES_API_URL=api)
    code, stdout, stderr = await finished(*EXPORTER, "once", "--output", str(file), env=environment)
    assert stdout == ""
    assert ("level=error" in stderr) == (code != 0)
    return code


@asynccontextmanager
async def collecting(folder: Path, work: Path) -> AsyncIterator[Prometheus]:
    """Run node_exporter over a folder of text files, and a Prometheus that scrapes it."""
    address = f"127.0.0.1:{free_port()}"
    flags = ("--collector.disable-defaults", "--collector.textfile", f"--collector.textfile.directory={folder}")
    async with running(tool("prometheus-node-exporter"), *flags, f"--web.listen-address={address}") as node:
        await node.said("Listening on")
        async with scraping(f"http://{address}", work) as prometheus:
            yield prometheus


async def test_what_once_wrote_arrives_in_prometheus_and_a_failure_touches_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    file = folder / NAME
    async with simulated(WORLD) as (simulator, api), collecting(folder, tmp_path) as prometheus:
        assert await once(api, file) == 0
        await prometheus.scraped()
        expected = calculated(WORLD, "v7")
        assert differences(await prometheus.sessions(), expected) == []
        assert len(expected) > 1000
        assert [value for _, value in await prometheus.query("thousandeyes_up")] == [1.0]
        assert await prometheus.value("node_textfile_scrape_error") == 0
        written = await prometheus.value("node_textfile_mtime_seconds")

        simulator.faults = parse_faults(["unauthorized"])
        assert await once(api, file) == 1
        await prometheus.scraped()
        assert await prometheus.value("node_textfile_mtime_seconds") == written
        assert differences(await prometheus.sessions(), expected) == []
        assert [each.name for each in folder.iterdir()] == [NAME]

        simulator.faults = ()
        assert await once(api, file) == 0
        await prometheus.scraped()
        assert (await prometheus.value("node_textfile_mtime_seconds") or 0) > (written or 0)


@contextmanager
def reading(file: Path) -> Iterator[set[bytes]]:
    """Read a file all the time; yield what has been seen."""
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(file.read_bytes())
            time.sleep(0.0001)  # the simulator runs beside this

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield seen
    finally:
        stop.set()
        reader.join()


async def test_who_reads_while_it_is_written_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / NAME
    whole: list[bytes] = []
    async with simulated(World(agents=100, sites=20)) as (_, api):
        await once(api, file)
        whole.append(await content(file))
        with reading(file) as seen:
            for _ in range(2):
                assert await once(api, file) == 0
                whole.append(await content(file))
    assert len(set(whole)) == 3, "each run says how long its poll took"
    assert min(map(len, whole)) > 250_000
    assert len(seen) > 1
    assert seen <= set(whole)


async def content(file: Path) -> bytes:
    """Read a file once everybody has had the time to."""
    await asyncio.sleep(0.05)
    return await asyncio.to_thread(file.read_bytes)


async def test_systemd_has_nothing_to_say_against_the_timer_of_the_page(tmp_path: Path) -> None:
    units = dict(re.findall(r"^# /etc/systemd/system/(\S+)\n(.*?)```", page("systemd"), re.MULTILINE | re.DOTALL))
    assert [Path(name).suffix for name in units] == [".service", ".timer"]
    for name, text in units.items():
        (tmp_path / name).write_text(text.replace(INSTALLED, COMMAND))
        said = await analyze("verify", "--recursive-errors=yes", "--man=no", str(tmp_path / name), units=tmp_path)
        assert said == (0, ""), name


def page(name: str) -> str:
    """Return a page of the documentation."""
    return (ROOT / f"docs/{name}.md").read_text()
