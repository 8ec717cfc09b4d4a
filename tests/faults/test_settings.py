"""Rows C: settings that are wrong. What is said of each value stands in tests/test_settings.py."""

import asyncio
import re
from pathlib import Path

import pytest
import raw
from servers import EXPORTER, TOKEN, clean_environment, finished, scraped_lines, simulated
from test_commands import here
from test_settings import CANARY, REFUSED_FILES

from exporter.errors import SettingsError
from exporter.settings import load
from exporter.simulator import World
from faults.conftest import row, trial


@row("C02", real=True, **{name: content for name, content, _ in REFUSED_FILES})
async def test_check_says_of_a_file_what_the_start_says(case: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_bytes(case if isinstance(case, bytes) else case.encode())
    async with raw.serving(raw.reply()) as api:
        flags = [f"--config.file={file}", f"--api.proxy={api.url}", f"--api.token={TOKEN}"]
        started, checked = await here(*flags), await here(*flags, "check")
        assert started == checked
        assert (checked[0], checked[1], api.connections) == (2, "", 0)
    assert re.search(rf"{re.escape(str(file))}:\d+:\d+: \S", checked[2])
    assert CANARY not in checked[2]


ADDRESSES = {
    "http": ("http://api.example.com", False),
    "userinfo": (f"https://somebody:{TOKEN}@api.example.com", False),
    "path": ("https://api.example.com/other", False),
    "version": ("https://api.example.com/v7", False),
    "query": (f"https://api.example.com?token={TOKEN}", False),
    "ftp": ("ftp://api.example.com", False),
    "slash": ("https://api.example.com/", True),
    "address": ("https://192.0.2.1:8443", True),
    "localhost": ("http://localhost:1", True),
    "loopback": ("http://[::1]:1", True),
}


@row("C05", **ADDRESSES)
def test_an_address_of_the_api(case: tuple[str, bool]) -> None:
    address, good = case
    arguments = [f"--api.url={address}", f"--api.token={CANARY}"]
    if good:
        assert load(arguments, {}).settings.api.url == address.rstrip("/")
        return
    with pytest.raises(SettingsError, match=r"^--api\.url") as caught:
        load(arguments, {})
    assert TOKEN not in str(caught.value)
    if address.startswith("http:"):
        assert load([*arguments, "--api.allow-insecure=true"], {}).settings.api.url == address


@row("C14")
async def test_a_foreign_account_group() -> None:
    async with trial(ready=False, api__account_groups="1001,9999") as t:
        await t.until(lambda: (t.value("polls_total", aid="9999") or 0) >= 2, 300)
        assert t.of("thousandeyes_up") == 1
        assert t.of("thousandeyes_up", "9999") == 0
        refused = sum(t.of("poll_failures_total", "9999", reason=reason) for reason in ("forbidden", "schema"))
        assert refused == t.of("polls_total", "9999")
        assert await t.scrape()


@row("C14", real=True)
async def test_a_misspelt_metric() -> None:
    code, output, errors = await here(f"--api.token={TOKEN}", "--metrics.families=latency_secnds", "check")
    assert (code, output) == (2, "")
    assert 'unknown name "latency_secnds"; did you mean "latency_seconds"? (there are ' in errors
    assert "experience_score" in errors


LOCALES = {
    "ascii": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
    "unknown": {"LC_ALL": "xx_YY.KOI8-R", "LANGUAGE": "xx", "TZ": "Nowhere/Bogus"},
}


@row("C18", real=True)
async def test_another_locale_or_time_zone(tmp_path: Path) -> None:
    async with simulated(World(agents=40)) as (_, api):

        async def written(name: str, **variables: str) -> list[str]:
            environment = clean_environment(THOUSANDEYES_TOKEN=TOKEN, THOUSANDEYES_API_URL=api, **variables)
            with (tmp_path / name).open("wb") as stdout:
                code, _, errors = await finished(*EXPORTER, "once", stdout=stdout, env=environment)
            assert code == 0, errors
            lines = scraped_lines((tmp_path / name).read_bytes().decode())
            return [line for line in lines if line.startswith("thousandeyes_endpoint_")]

        here, *there = await asyncio.gather(
            written("here", TZ="Pacific/Kiritimati"), *(written(name, **each) for name, each in LOCALES.items())
        )
    assert 'location="São Paulo, Brazil"' in "\n".join(here)
    assert there == [here] * len(LOCALES)
