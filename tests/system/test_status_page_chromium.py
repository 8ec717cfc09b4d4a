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

from exporter.web.status import AccountGroupView, PollView, SiteView, SourceView, StatusView

AXE = ROOT / ".tools/axe.min.js"
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--remote-debugging-port=0", "about:blank"),
)
ODD = "<b>&\"'" + "W" * 200
OK, FAILED = PollView(0.4, None), PollView(0.1, "auth")
GOOD = SourceView("sessions", [OK, FAILED, OK], 30.0, "")
BAD = SourceView("agents", [OK] * 40 + [FAILED] * 30, 7500.0, f"the API rejected the token {ODD}")
NEW = SourceView("agents", [], None, "")
GROUP = AccountGroupView("1001", "Example", [GOOD, BAD], 990, 10, 4, 20_000)
SITES = [SiteView(f"site-{n}.example", n, n / 10, n / 100, 1 / (n + 1)) for n in range(9)]
SITES += [SiteView(ODD, 1, math.nan, math.nan, math.nan), SiteView("", 1, 0.1, 0.1, 0.1)]
VIEW = StatusView("/metrics", 900.0, [GROUP], SITES, 160_000, 500_000, 0, 14, 120, 226.0, 240.0)
EMPTY = replace(GROUP, aid=ODD, name=ODD, joined=0, user_only=0, sources=[GOOD, NEW])
STATES = {
    "working": VIEW,
    "empty": replace(VIEW, account_groups=[EMPTY], sites=[], series_dropped=9, limit=None),
    "unknown": replace(VIEW, account_groups=[], sites=[], error="the API rejected the token"),
}


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
            assert await tab.evaluate("document.scrollingElement.scrollWidth") <= width
            await tab.evaluate(f"{AXE.read_text()}; 0")
            report = "axe.run({preload: false}).then(found => JSON.stringify(found.violations))"
            assert json.loads(await tab.evaluate(report)) == [], (state, theme, width)
