"""Real programs that system tests run: the exporter, Prometheus, Alertmanager, and others."""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from exporter.simulator import Simulator, World

ROOT = Path(__file__).parents[2]
EXPORTER = (sys.executable, "-m", "exporter")
TOKEN = "token-of-the-simulator"
AFTERNOON = 1_795_012_350.0
"""A time at which the simulated company works: 2026-11-18 14:32:30 UTC, a Wednesday."""
RULES = ROOT / "deploy/prometheus/thousandeyes.rules.yml"
ALERTMANAGER_CONFIG = ROOT / "deploy/alertmanager/alertmanager.yml"
SPEED = 60
"""How much faster time passes with `accelerate` than in reality."""
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
DURATION = re.compile(r"(?:(?<=\[)|(?<=: )|(?<=offset ))(\d+)([smhdw])(?=\]|$|\W)", re.MULTILINE)
PATH = os.pathsep.join(
    [str(Path(sys.executable).parent), os.environ["PATH"], str(ROOT / ".tools/usr/bin")]
)


def tool(name: str) -> str:
    """Return the path of a program that tests need; without it, a test fails."""
    path = shutil.which(name, path=PATH)
    assert path, f"{name} is missing: run `make tools`"
    return path


def environment(**variables: str) -> dict[str, str]:
    """Return the environment without settings of the exporter."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("THOUSANDEYES_")}
    return {**inherited, **variables}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def run(*command: str, code: int = 0, seconds: float = 60.0, **options: Any) -> str:
    """Run a program, which must end with this exit code; return its output and errors."""
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.STDOUT}
    process = await asyncio.create_subprocess_exec(
        tool(command[0]), *command[1:], **{"env": environment(), **pipes, **options}
    )
    async with asyncio.timeout(seconds):
        output = (await process.communicate())[0].decode()
    assert process.returncode == code, f"exit code {process.returncode}: {command}\n{output}"
    return output


async def until(
    condition: Callable[[], Awaitable[Any]],
    seconds: float = 20.0,
    interval: float = 0.1,
    name: object = None,
) -> Any:
    """Wait until a condition is true, and return its result; `name` is for the error message."""
    deadline = time.monotonic() + seconds
    while not (result := await condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {name or condition}"
        await asyncio.sleep(interval)
    return result


class Server:
    """A running program with an HTTP API."""

    def __init__(self, http: aiohttp.ClientSession, process: asyncio.subprocess.Process) -> None:
        self.http = http
        self.process = process

    async def get(self, path: str, **params: Any) -> Any:
        async with self.http.get(path, params=params) as response:
            assert response.status == 200, await response.text()
            is_json = response.content_type == "application/json"
            return await (response.json() if is_json else response.text())

    async def is_ready(self) -> bool:
        assert self.process.returncode is None, f"exit code {self.process.returncode}"
        try:
            async with self.http.get("/-/ready") as response:
                return response.status == 200
        except aiohttp.ClientError:
            return False

    async def query(self, expr: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        async with self.http.post("/api/v1/query", data={"query": expr}) as response:
            payload = await response.json()
        assert payload["status"] == "success", (expr, payload)
        series: list[dict[str, Any]] = payload["data"]["result"]
        return series

    async def value(self, expr: str) -> float | None:
        """Return the first value of an instant query."""
        series = await self.query(expr)
        return float(series[0]["value"][1]) if series else None


@asynccontextmanager
async def running(
    *command: str, address: str, seconds: float = 30.0, **options: Any
) -> AsyncIterator[Server]:
    """Run a server from when it is ready; at the end it is terminated."""
    process = await asyncio.create_subprocess_exec(
        tool(command[0]),
        *command[1:],
        **{"env": environment(), "stdout": asyncio.subprocess.DEVNULL, **options},
    )
    try:
        async with aiohttp.ClientSession(f"http://{address}") as http:
            server = Server(http, process)
            await until(server.is_ready, seconds)
            yield server
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), 15)


def prometheus(folder: Path, config: dict[str, Any], *flags: str) -> Any:
    """Run Prometheus with its data in a new folder."""
    folder.mkdir(exist_ok=True)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    return running(
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=error",
        *flags,
        address=address,
    )


def scrape_config(*targets: str) -> dict[str, Any]:
    """Return a Prometheus configuration that scrapes exporters every second."""
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "scrape_configs": [
            {"job_name": "thousandeyes", "static_configs": [{"targets": list(targets)}]}
        ],
    }


def flags(api: str, **settings: str) -> list[str]:
    """Return flags of the exporter; `poll__interval="1s"` is the setting `poll.interval`."""
    settings = {
        "api__url": api,
        "api__token": TOKEN,
        "api__requests_per_minute": "10000",
        "log__level": "error",
        **settings,
    }
    return [f"--{k.replace('__', '.').replace('_', '-')}={v}" for k, v in settings.items()]


def exporter(api: str, address: str, **settings: str) -> Any:
    """Run the exporter; `settings` are those of `flags`."""
    options = flags(api, web__listen_address=address, **settings)
    return running(*EXPORTER, *options, address=address)


@asynccontextmanager
async def simulator(
    world: World, *, clock: Callable[[], float] = lambda: AFTERNOON
) -> AsyncIterator[tuple[Simulator, str]]:
    """Run the simulated API in this process, by default at a fixed time; yield its URL, too."""
    api = Simulator(world, token=TOKEN, clock=clock, rate_limit=1_000_000)
    try:
        yield api, await api.start()
    finally:
        await api.stop()


def accelerate(text: str) -> str:
    """Shorten all durations in a configuration file, or in the expressions of rules."""
    return DURATION.sub(lambda m: f"{int(m[1]) * UNITS[m[2]] * 1000 // SPEED}ms", text)


class Receiver:
    """Notifications that Alertmanager has sent, each with its Unix time `received`."""

    def __init__(self) -> None:
        self.notifications: list[dict[str, Any]] = []

    async def receive(self, request: web.Request) -> web.Response:
        self.notifications.append({**await request.json(), "received": time.time()})
        return web.Response()

    def alerts(self, name: str, status: str) -> list[dict[str, Any]]:
        """Return what was sent about an alert with a status: `firing` or `resolved`."""
        sent = [{**a, "receiver": n["receiver"]} for n in self.notifications for a in n["alerts"]]
        wanted = f"ThousandEyes{name}", status
        return [each for each in sent if (each["labels"]["alertname"], each["status"]) == wanted]

    async def wait_for(self, name: str, status: str = "firing") -> Any:
        async def received() -> list[dict[str, Any]]:
            return self.alerts(name, status)

        return (await until(received, 40, name=name))[0]


@asynccontextmanager
async def alertmanager(folder: Path) -> AsyncIterator[tuple[Server, Receiver]]:
    """Run Alertmanager with the shipped configuration, and receive its notifications."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/", receiver.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    config = yaml.safe_load(accelerate(ALERTMANAGER_CONFIG.read_text()))
    for each in config["receivers"]:
        each["webhook_configs"] = [{"url": f"http://127.0.0.1:{runner.addresses[0][1]}/"}]
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_port()}"
    try:
        async with running(
            "prometheus-alertmanager",
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={address}",
            "--cluster.listen-address=",
            "--log.level=error",
            address=address,
        ) as server:
            yield server, receiver
    finally:
        await runner.cleanup()


@asynccontextmanager
async def fast_prometheus(
    folder: Path, exporter: str, alerts: Server, clock: str
) -> AsyncIterator[Server]:
    """Run Prometheus with the shipped configuration, accelerated; `clock` is the API's time."""
    rules = accelerate(RULES.read_text()).replace("time()", clock)
    config = accelerate(RULES.with_name("prometheus.yml").read_text())
    for old, new in (
        (RULES.name, str(folder / f"*{RULES.name}")),
        ("localhost:9350", exporter),
        ("localhost:9093", str(alerts.http._base_url.authority)),  # type: ignore[union-attr]
    ):
        config = config.replace(old, new)
    loaded = yaml.safe_load(config)
    loaded["scrape_configs"][0]["scrape_timeout"] = loaded["scrape_configs"][0]["scrape_interval"]
    # Reloading disconnects Alertmanager for seconds. Alerts expire after four times this delay.
    resend = "--rules.alert.resend-delay=5s"
    async with prometheus(folder / "prometheus", loaded, resend) as server:

        async def connected() -> bool:
            found = await server.get("/api/v1/alertmanagers")
            return bool(found["data"]["activeAlertmanagers"] and await server.query("up == 1"))

        # This takes seconds, which would be minutes without an exporter.
        await until(connected)
        (folder / RULES.name).write_text(rules)
        server.process.send_signal(signal.SIGHUP)
        yield server
