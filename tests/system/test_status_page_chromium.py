"""The status page in a browser: in every state, light and dark, on a wide and a narrow screen."""

import html
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web
from system.servers import ROOT, run
from web_server import GROUP, NOW, SESSIONS, VIEW

from exporter.account_group import AccountGroup
from exporter.errors import PollError
from exporter.sources.results import PollRecord
from exporter.web.server import serving
from exporter.web.status import QUANTITIES, SiteView, content_security_policy, render

CHROMIUM = (
    *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--no-first-run", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--hide-scrollbars", "--virtual-time-budget=20000", "--dump-dom"),
)
WIDTHS = (1200, 375)  # CSS pixels
ODD = "<b>&\"'" + "W" * 200
POLLS = [PollRecord(n % 7, "auth" if n > 40 else None, NOW - 60 * (60 - n)) for n in range(60)]
FAILURE = PollError("auth", f"the API rejected the token {ODD}")
GOOD = replace(SESSIONS, polls=POLLS[:40])
BAD = replace(SESSIONS, source="local_networks", polls=POLLS, failure=FAILURE, joins={}, note=ODD)
NEW = replace(SESSIONS, source="agents", interval=86_400.0, polls=[], last_success=None)
SITES = [SiteView(f"{n}.example", n, dict.fromkeys(QUANTITIES, n / 50)) for n in range(30)]
SITES += [SiteView(ODD, 1, dict.fromkeys(QUANTITIES, value)) for value in (float("nan"), 0.1)]
ROWS = [("api.url", ODD, f"/etc/{ODD}:3"), ("poll.interval", "1m", "default")]
EMPTY = AccountGroup(ODD, ODD), [replace(GOOD, records=0), NEW]
STATES = {
    "working": replace(VIEW, account_groups=[(GROUP, [GOOD, BAD])], sites=SITES, settings=ROWS),
    "empty": replace(VIEW, account_groups=[EMPTY], series_dropped=9, limit=None),
    "unknown": replace(VIEW, account_groups=[], failure=FAILURE),
}
FRAMES = """<!doctype html><script>addEventListener("message", event => {
  document.body.appendChild(document.createElement("pre")).textContent = JSON.stringify(event.data);
})</script><body>"""
EXAMINE = """<script nonce="test">%s</script><script nonce="test">
document.querySelectorAll("details").forEach(each => each.open = true);
const options = {preload: false, rules: {"meta-refresh": {enabled: false}}};
axe.run(options).then(found => parent.postMessage({
  violations: found.violations.map(each => each.id + each.nodes[0].html),
  hidden: document.scrollingElement.scrollWidth - innerWidth,
  loaded: performance.getEntriesByType("resource").map(each => each.name),
  dark: matchMedia("(prefers-color-scheme: dark)").matches,
  margin: getComputedStyle(document.body).margin,
}, "*"))</script>"""
"""The page may reload itself, because it has no script and nothing can be entered."""


async def frames(_: web.Request) -> web.Response:
    tags = (f'<iframe src="/{state}" width="{width}">' for state in STATES for width in WIDTHS)
    return web.Response(text=FRAMES + "</iframe>".join(tags), content_type="text/html")


async def page(request: web.Request) -> web.Response:
    """Respond with the page and its policy, except that it may be framed and examined."""
    text = render(STATES[request.path[1:]])
    policy = content_security_policy(text)
    policy = policy.replace("frame-ancestors 'none'", "script-src 'nonce-test'")
    text += EXAMINE % (ROOT / ".tools/axe.min.js").read_text()
    headers = {"Content-Security-Policy": policy, "Content-Type": "text/html"}
    return web.Response(text=text, headers=headers)


@pytest.mark.parametrize("dark", [False, True])
async def test_the_page_is_accessible_and_loads_nothing_else(dark: bool, tmp_path: Path) -> None:
    app = web.Application()
    app.add_routes([web.get("/", frames), *(web.get(f"/{state}", page) for state in STATES)])
    theme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    async with serving(app, "127.0.0.1", 0) as url:
        dom = await run(*CHROMIUM, f"--user-data-dir={tmp_path}", theme, f"{url}/")
    reports = [json.loads(html.unescape(each)) for each in re.findall("<pre>(.*?)</pre>", dom)]
    good = {"violations": [], "hidden": 0, "loaded": [], "dark": dark, "margin": "0px"}
    assert reports == [good] * len(STATES) * len(WIDTHS)
