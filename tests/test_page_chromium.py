"""The page for people, as a browser shows it: in every state, in light and dark, on a desk and on a telephone."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from chromium import Tab, browsing
from servers import ask, exporting, simulated, until

from exporter.simulator import World, parse_faults

pytestmark = pytest.mark.asyncio(loop_scope="module")
DESK, TELEPHONE = 1200, 375

STATES: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "with-data": ({}, {}, "It works."),
    "two-groups": (
        {"world": World(agents=40, sites=20, account_groups=2)},
        {"api__account_groups": "all"},
        "It works.",
    ),
    "odd-names": ({"faults": ["odd_labels"]}, {}, "It works."),
    "capped": ({}, {"metrics__max_series": "500"}, "are folded into __other__"),
    "empty": ({"faults": ["empty"]}, {}, "there was no session"),
    "refused": ({"faults": ["unauthorized"]}, {}, "could not be listed"),
    "refused-later": ({}, {"poll__interval": "1s"}, "polls failed"),
}
"""What the API does, what is set, and the words by which the page tells it."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tab(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Tab]:
    """One browser for all tests here."""
    async with browsing(tmp_path_factory.mktemp("chromium")) as tab:
        yield tab


@asynccontextmanager
async def in_state(name: str) -> AsyncIterator[str]:
    """Run an exporter in a state; yield the address of its page."""
    api, changed, words = STATES[name]
    ready = name not in ("empty", "refused")
    async with simulated(**api) as (simulator, url), exporting(url, ready=ready, **changed) as (_, address):
        if name == "refused-later":
            simulator.faults = parse_faults(["unauthorized"])

        async def tells() -> bool:
            return words in (await ask(f"{address}/")).text

        await until(tells)
        yield f"{address}/"


async def too_wide(tab: Tab, width: int) -> list[str]:
    """Return what reaches beyond the window."""
    assert await tab.evaluate("document.scrollingElement.scrollWidth") <= width
    return await tab.evaluate(
        "[...document.body.querySelectorAll('*')]"
        f".filter(each => each.getBoundingClientRect().right > {width}).map(each => each.outerHTML)"
    )


@pytest.mark.parametrize("state", STATES)
async def test_a_browser_shows_it_without_complaint_and_everybody_can_read_it(
    tab: Tab, state: str, tmp_path: Path
) -> None:
    """No error, no breach of its policy, nothing asked of anybody else, nothing too wide, no barrier."""
    async with in_state(state) as address:
        for theme, width in product(("light", "dark"), (DESK, TELEPHONE)):
            await tab.show(address, width=width, theme=theme)
            assert STATES[state][2] in await tab.evaluate("document.body.innerText")
            assert tab.complaints == []
            assert [url for url in tab.asked if not url.startswith("data:")] == [address]
            assert await too_wide(tab, width) == []
            if (theme, width) in (("light", TELEPHONE), ("dark", DESK)):
                (tmp_path / f"{theme}.png").write_bytes(await tab.picture())
                assert await tab.barriers() == []
