"""The request budget of a large company: sessions come first, the other sources stretch."""

import asyncio

from failures.harness import trial
from fake_clock import fake_time

from exporter.simulator import World

REQUESTS_PER_MINUTE = 40
SOURCES = ("sessions", "agents", "local_networks")


@fake_time
async def test_sessions_are_never_delayed_by_other_sources() -> None:
    """Sessions need about 12 requests a minute, and local networks more than 40."""
    async with trial(
        world=World(agents=400, sessions_per_minute=80),
        ready=False,
        api__requests_per_minute=REQUESTS_PER_MINUTE,
        local_networks__interval="1m",
    ) as t:
        t.simulator.page_size = 100  # as many requests as with ten times as many agents
        await asyncio.sleep(200)  # the first poll reads the whole look-back
        skipped = {source: t.value("polls_skipped_total", source=source) for source in SOURCES}
        stretched = set[str]()
        for _ in range(3):
            await t.polls()
            assert t.value("last_poll_duration_seconds") < 1.0  # computing takes no virtual time
            pollers = t.exporter.manager.pollers
            stretched |= {each.source.name for each in pollers if each.stretched}
            assert t.exporter.client.rate_limiter.sent_last_minute() <= REQUESTS_PER_MINUTE
        assert t.value("polls_skipped_total") == skipped["sessions"]
        assert t.value("polls_skipped_total", source="local_networks") > skipped["local_networks"]
        assert all(t.value("thousandeyes_up", source=source) for source in SOURCES)
        assert stretched == {"local_networks"}
        assert "api.requests_per_minute" in next(line for line in t.log if "poll_skipped" in line)
