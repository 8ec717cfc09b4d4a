"""The status page in a browser: in every state, light and dark, on a wide and a narrow screen."""

import asyncio
import itertools
import json
import math
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
from system.servers import ROOT, tool
from web_server import FakeState, serve

from exporter.account_group import AccountGroup
from exporter.errors import PollError, Reason
from exporter.sources.results import PollRecord
from exporter.web.status import (
    QUANTITIES,
    SiteView,
    SourceView,
    StatusView,
)

AXE = ROOT / ".tools/axe.min.js"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-port=0", "about:blank"),
)
ODD = "<b>&\"'" + "W" * 200
NOW = 1_795_012_350.0
REASONS: list[Reason | None] = [*[None] * 41, *["auth"] * 19]
POLLS = [PollRecord(0.1 + n % 7, each, NOW - 3600 + 60 * n) for n, each in enumerate(REASONS)]
JOINS = {"joined": 990, "user_only": 10, "network_only": 4}
GOOD = SourceView("sessions", 60.0, POLLS[:40], NOW + 10, NOW - 30, 1000, joins=JOINS)
FAILURE = PollError("auth", f"the API rejected the token {ODD}")
BAD = SourceView("local_networks", 60.0, POLLS, NOW, NOW - 7500, 20_000, FAILURE, note=ODD)
NEW = SourceView("agents", 86_400.0, [], NOW + 10, None, 0)
SITES = [SiteView(f"{n}.example", n, dict.fromkeys(QUANTITIES, n / 50)) for n in range(30)]
SITES += [SiteView(ODD, 1, dict.fromkeys(QUANTITIES, value)) for value in (math.nan, 0.1)]
VIEW = StatusView(
    *("/metrics", 900.0, [(AccountGroup("1001", "Example"), [GOOD, BAD])], SITES),
    *(160_000, 500_000, 0, 14, 120, 226.0, 240.0),
    settings=[("api.url", ODD, f"/etc/{ODD}:3"), ("poll.interval", "1m", "default")],
    now=NOW,
)
EMPTY = AccountGroup(ODD, ODD), [replace(GOOD, records=0), NEW]
STATES = {
    "working": VIEW,
    "empty": replace(VIEW, account_groups=[EMPTY], sites=[], series_dropped=9, limit=None),
    "unknown": replace(VIEW, account_groups=[], sites=[], failure=FAILURE),
}
REPORT = """
    axe.run({preload: false, rules: {"meta-refresh": {enabled: false}}})
    .then(found => JSON.stringify(found.violations))
"""
"""The page reloads itself, because it has no script and nothing can be entered."""
OPEN = "document.querySelectorAll('details').forEach(each => each.open = true)"


class Tab:
    """A browser tab, driven by the DevTools protocol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self.complaints: list[str] = []

    async def receive(self) -> dict[str, Any]:
        message = dict(await self._socket.receive_json(timeout=20))
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            case "Log.entryAdded" | "Runtime.exceptionThrown" | "Audits.issueAdded":
                self.complaints.append(json.dumps(message))
        return message

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": params})
        while (reply := await self.receive()).get("id") != number:
            pass
        return dict(reply["result"])

    async def show(self, url: str, width: int, theme: str) -> None:
        """Load a page; `width` is in CSS pixels, `theme` is light or dark."""
        screen = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 600}
        await self.call("Emulation.setDeviceMetricsOverride", **screen)
        features = [{"name": "prefers-color-scheme", "value": theme}]
        await self.call("Emulation.setEmulatedMedia", features=features)
        self.requests.clear()
        await self.call("Page.navigate", url=url)
        while (await self.receive()).get("method") != "Page.loadEventFired":
            pass

    async def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        options = {"expression": script, "awaitPromise": True, "returnByValue": True}
        result = await self.call("Runtime.evaluate", **options)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")


@asynccontextmanager
async def chromium(folder: Path) -> AsyncIterator[Tab]:
    """Run the browser with one tab."""
    command = (tool("chromium"), f"--user-data-dir={folder}", *FLAGS)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stderr=pipe, limit=1 << 20)
    try:
        assert process.stderr
        while not (address := re.search(rb"ws://([^/]+)", await process.stderr.readline())):
            assert process.returncode is None
        async with aiohttp.ClientSession(f"http://{address[1].decode()}") as http:
            pages = await (await http.get("/json/list")).json()
            async with http.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                tab = Tab(socket)
                for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
                    await tab.call(f"{domain}.enable")
                yield tab
    finally:
        process.terminate()
        await process.communicate()


async def test_the_page_is_accessible_and_loads_nothing_else(tmp_path: Path) -> None:
    served = FakeState()
    async with chromium(tmp_path / "profile") as tab, serve(served) as url:
        for state, theme, width in itertools.product(STATES, ("light", "dark"), (1200, 375)):
            served.view = STATES[state]
            await tab.show(f"{url}/", width, theme)
            assert tab.complaints == []
            assert [each for each in tab.requests if not each.startswith("data:")] == [f"{url}/"]
            await tab.evaluate(OPEN)
            assert await tab.evaluate("document.scrollingElement.scrollWidth") <= width
            await tab.evaluate(f"{AXE.read_text()}; 0")
            assert json.loads(await tab.evaluate(REPORT)) == [], (state, theme, width)
