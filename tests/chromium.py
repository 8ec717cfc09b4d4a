"""A real Chromium, driven by its DevTools protocol, which notes all that a page asks for and complains of.

The protocol: https://chromedevtools.github.io/devtools-protocol/
"""

import asyncio
import base64
import itertools
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from servers import ROOT, running, tool

AXE = ROOT / ".tools/axe.min.js"
FLAGS = (
    *("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    *("--remote-debugging-port=0", *(("--no-sandbox",) if os.geteuid() == 0 else ())),
)


class Tab:
    """One tab: what it was shown, what it asked for, and what it complained of."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._session: dict[str, str] = {}
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take in what the browser says, for ever."""
        async for message in self._socket:
            said = json.loads(message.data)
            if "id" in said:
                self._answers.pop(said["id"]).set_result(said)
            else:
                self._happened(said["method"], said["params"])

    def _happened(self, event: str, told: dict[str, Any]) -> None:
        match event:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Network.requestWillBeSent":
                self.asked.append(told["request"]["url"])
            case "Log.entryAdded" | "Runtime.exceptionThrown" | "Runtime.consoleAPICalled" | "Audits.issueAdded":
                self.complaints.append(json.dumps(told))

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol; an error is a failure of the test."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **self._session})
        answer = await asyncio.wait_for(self._answers[number], 20)
        assert "error" not in answer, answer
        return dict(answer["result"])

    async def begin(self) -> None:
        """Open the tab, and listen to everything that it could complain of."""
        target = await self.call("Target.createTarget", url="about:blank")
        attached = await self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network", "Audits"):
            await self.call(f"{domain}.enable")

    async def show(self, url: str, *, width: int, theme: str) -> None:
        """Show a page anew: CSS pixels, and `light` or `dark`."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 600
        )
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self._loaded.clear()
        self.asked.clear()
        self.complaints.clear()
        await self.call("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 20)

    async def evaluate(self, expression: str) -> Any:
        """Return what a JavaScript expression is, or what it promises."""
        told = await self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    async def barriers(self) -> list[dict[str, Any]]:
        """Return what axe-core finds: everything that would keep somebody from reading the page."""
        assert AXE.exists(), f"{AXE} is missing: `make tools` fetches it"
        await self.evaluate(AXE.read_text() + "; 0")
        found = json.loads(await self.evaluate("axe.run({preload: false}).then(found => JSON.stringify(found))"))
        assert found["passes"]
        unsure = [each for each in found["incomplete"] if each["id"] != "color-contrast"]
        return [
            {"rule": each["id"], "help": each["help"], "where": [node["html"] for node in each["nodes"]]}
            for each in found["violations"] + unsure
        ]

    async def picture(self) -> bytes:
        """Return the whole page as a PNG."""
        taken = await self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(taken["data"])


@asynccontextmanager
async def browsing(folder: Path) -> AsyncIterator[Tab]:
    """Run Chromium with one tab; what it keeps is in a folder."""
    home = {name: str(folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    command = [tool("chromium"), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
    async with running(*command, env={**os.environ, **home}) as program, aiohttp.ClientSession() as http:
        line = await program.said("DevTools listening on ", 60)
        address = re.search(r"ws://\S+", line)
        assert address, line
        async with http.ws_connect(address[0], max_msg_size=0) as socket:
            tab = Tab(socket)
            listening = asyncio.create_task(tab.listen())
            try:
                await tab.begin()
                yield tab
                await tab.call("Target.getTargets")
            finally:
                listening.cancel()
                await asyncio.gather(listening, return_exceptions=True)
                program.process.terminate()
                await program.wait()
