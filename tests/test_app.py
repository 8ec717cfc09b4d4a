"""The parts together: which account groups are polled, what is healthy and ready, and what a crash costs."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from servers import NOW, StillClock, ask, exporting, logging_as, settings_for, simulated, until

from exporter import app
from exporter.app import Exporter, given, once
from exporter.clock import Clock
from exporter.errors import PollError
from exporter.model import AccountGroup
from exporter.simulator import World, parse_faults

TWO = World(agents=20, sites=4, account_groups=2)
ALL = {"api__account_groups": "all"}


async def up(address: str) -> dict[str, float]:
    """Return `thousandeyes_up` by the label of the account group."""
    lines = (await ask(f"{address}/metrics")).text.splitlines()
    found = [line for line in lines if line.startswith("thousandeyes_up{")]
    return {line.split('"')[1]: float(line.split()[-1]) for line in found}


async def test_the_tokens_own_account_group_is_polled_unless_others_are_named() -> None:
    async with simulated(TWO) as (_, api):
        for wanted, polled in (((), ["1001"]), (("1002",), ["1002"]), (("1002", "1001"), ["1002", "1001"])):
            settings = {"api__account_groups": ",".join(wanted)} if wanted else {}
            async with exporting(api, **settings) as (exporter, address):
                assert list(exporter.pollers) == sorted(polled, key=polled.index)
                assert await up(address) == dict.fromkeys(polled, 1.0)
        async with exporting(api, **ALL) as (exporter, address):
            assert await up(address) == {"1001": 1.0, "1002": 1.0}
            names = [group.name for group in (await exporter.view()).groups]
            assert names == ["Example Headquarters", "Example Logistics"]


async def test_account_groups_come_and_go(monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "AGENTS_EVERY", 0.1)
    async with simulated(World(agents=20, sites=4)) as (simulator, api), exporting(api, **ALL) as (exporter, address):
        assert await up(address) == {"1001": 1.0}
        simulator.world = TWO
        await until(lambda: len(exporter.pollers) == 2 and exporter.ready())
        assert await up(address) == {"1001": 1.0, "1002": 1.0}
        simulator.world = World(agents=20, sites=4)
        await until(lambda: exporter.publisher.publication.complete == {"1001"})
        assert 'aid="1002"' not in (await ask(f"{address}/metrics")).text
        assert [group.aid for group in (await exporter.view()).groups] == ["1001"]


async def test_groups_that_can_not_be_listed_again_are_polled_on(monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "AGENTS_EVERY", 0.1)
    async with simulated(TWO) as (simulator, api), exporting(api, **ALL) as (exporter, address):
        simulator.faults = parse_faults(["forbidden"])
        with logging_as("error") as lines:
            await until(lambda: [line for line in lines() if "account_groups_not_listed" in line])
        assert len(exporter.pollers) == 2
        assert exporter.healthy()
        assert (await ask(f"{address}/-/ready")).status == 200


@pytest.mark.parametrize(
    ("settings", "aids"), [({}, [""]), (ALL, [""]), ({"api__account_groups": "1001,1002"}, ["1001", "1002"])]
)
async def test_an_api_that_does_not_answer_is_a_failed_poll_from_the_start(settings: Any, aids: list[str]) -> None:
    async with simulated(TWO, faults=["maintenance"]) as (simulator, api):
        changed = {"poll__interval": "1s", **settings}
        async with exporting(api, ready=False, **changed) as (exporter, address):
            failed = f'poll_failures_total{{aid="{aids[0]}",reason="maintenance"}} 1.0'
            await until(lambda: exporter.telemetry.render(app.Format.TEXT).count(failed), 20)
            assert await up(address) == dict.fromkeys(aids, 0.0)
            assert (await ask(f"{address}/-/ready")).status == 503
            assert (await ask(f"{address}/-/healthy")).status == 200
            simulator.faults = ()
            await until(exporter.ready)
            assert '{aid=""' not in (await ask(f"{address}/metrics")).text
            assert set((await up(address)).values()) == {1.0}


async def test_a_token_that_may_not_list_account_groups_polls_those_that_are_named() -> None:
    async with simulated(TWO) as (_, api):
        for wanted, polled in ((["1002"], ["1002"]), ([], [""])):
            settings = settings_for(api, **({"api__account_groups": ",".join(wanted)} if wanted else {}))
            exporter = Exporter(settings)

            async def refuse(_: object) -> list[AccountGroup]:
                raise PollError("forbidden", "no")

            exporter.source.account_groups = refuse  # type: ignore[method-assign]
            with logging_as("warn") as lines:
                assert await exporter.find()
            assert "names stay unknown" in lines()[0]
            assert list(exporter.pollers) == polled
            await exporter.close()


async def test_all_account_groups_of_none_is_no_answer() -> None:
    async with simulated(TWO) as (_, api):
        exporter = Exporter(settings_for(api, **ALL))

        async def nothing(_: object) -> list[AccountGroup]:
            return []

        exporter.source.account_groups = nothing  # type: ignore[method-assign]
        with logging_as("error") as lines:
            assert not await exporter.find()
        assert "reason=schema" in lines()[0]
        await exporter.close()


async def test_a_listing_of_account_groups_has_a_deadline(monkeypatch: Any) -> None:
    async with simulated(TWO) as (_, api):
        exporter = Exporter(settings_for(api))

        async def late(_: object) -> list[AccountGroup]:
            raise TimeoutError

        exporter.source.account_groups = late  # type: ignore[method-assign]
        with logging_as("error") as lines:
            assert not await exporter.find()
        assert "reason=deadline" in lines()[0]
        await exporter.close()


async def test_health_is_that_everything_comes_round_within_two_intervals() -> None:
    now = 0.0
    async with simulated(TWO) as (_, api):
        exporter = Exporter(settings_for(api), clock=Clock(monotonic=lambda: now))
        assert exporter.healthy()
        now = 119.0 + 60.0
        assert exporter.healthy()  # the first answer may take as long as two time limits
        now = 120.0 + 60.0
        assert not exporter.healthy()
        await exporter.find()
        assert exporter.healthy()
        now += 120.0
        assert not exporter.healthy()
        await exporter.close()


async def test_what_is_folded_for_the_limit_is_shown_and_logged() -> None:
    world = World(agents=40, sites=8)
    with logging_as("warn") as lines:
        async with simulated(world) as (_, api), exporting(api, metrics__max_series="1000") as (exporter, address):
            text = (await ask(f"{address}/metrics")).text
    assert exporter.publisher.publication.snapshot.series <= 1000
    assert 'agent="__other__"' in text
    assert f"\nthousandeyes_exporter_series_dropped {float(exporter.publisher.publication.dropped)}\n" in text
    assert "event=series_folded" in lines()[0]


async def test_the_status_page_says_how_each_account_group_is() -> None:
    async with (
        simulated(TWO, faults=["forbidden_group"]) as (simulator, api),
        exporting(api, ready=False, poll__interval="1s", **ALL) as (exporter, address),
    ):
        assert "which account groups there are" in (await ask(f"{address}/")).text
        await until(lambda: len(exporter.pollers) == 2 and all(poller.ended for poller in exporter.pollers.values()))
        page = (await ask(f"{address}/")).text
        assert page.count("It works.") == 1
        assert "403: the token&#x27;s user needs" in page
        assert "mail.example.com" in page
        assert not exporter.ready()
        simulator.faults = ()
        await until(lambda: exporter.ready() and not any(poller.failing for poller in exporter.pollers.values()))
        assert (await ask(f"{address}/")).text.count("It works.") == 2


async def test_names_of_agents_are_hashed_where_wished() -> None:
    world = World(agents=20, sites=4)
    async with simulated(world) as (_, api):
        settings = {"metrics__agent_names": "hashed", "metrics__agent_names_key": "0123456789abcdef"}
        async with exporting(api, **settings) as (_, address):
            text = (await ask(f"{address}/metrics")).text
    assert world.people[0].id in text
    assert not [agent.name for agent in world.people if agent.name in text]


async def test_once_tells_the_text_or_what_failed() -> None:
    async with simulated(TWO, faults=["forbidden_group"]) as (simulator, api):
        text, failed = await once(settings_for(api, **ALL))
        assert failed == {"1002": "forbidden"}
        assert 'thousandeyes_up{aid="1001"} 1.0' in text
        simulator.faults = parse_faults(["maintenance"])
        with pytest.raises(PollError, match="nothing was polled"):
            await once(settings_for(api))


async def test_a_token_that_can_not_be_read_is_a_failed_poll(tmp_path: Any) -> None:
    file = tmp_path / "token"
    file.write_text("x")
    async with simulated(TWO, token="x") as (_, api):
        settings = settings_for(api, api__token_file=str(file), api__token=None)
        exporter = Exporter(settings)
        file.unlink()
        with logging_as("error") as lines:
            assert not await exporter.find()
        assert "reason=auth" in lines()[0]
        await exporter.close()


async def test_rounds_are_those_of_the_api_whatever_this_machine_says() -> None:
    clock = StillClock(NOW - 86_400)
    async with simulated(TWO, clock=clock) as (_, api), exporting(api) as (exporter, _):
        newest = exporter.pollers["1001"].result.rows.columns["round_timestamp_seconds"].max()
        assert clock.now - 180 < newest <= clock.now


# Other settings.


def counted(exporter: Exporter) -> float:
    """Return how many sessions were counted on sites."""
    return sum(each.sessions for poller in exporter.pollers.values() for each in poller.result.sites.values())


async def test_other_settings_keep_what_was_counted_and_store_what_they_select() -> None:
    clock = StillClock()
    async with simulated(World(agents=200, sites=4), clock=clock) as (_, api):
        exporter = Exporter(settings_for(api), clock=Clock(wall=clock))
        await exporter.find()
        (poller,) = exporter.pollers.values()
        await poller.poll()
        clock.now += 300
        await poller.poll()
        before, sites = counted(exporter), {key.site for key in poller.result.rows.keys}
        requests = exporter.http.budget.sent()
        assert before > 0
        # A longer look-back reads again what was counted and forgotten: it must not be counted twice.
        chosen = sorted(sites)[0]
        changed = settings_for(api, filter__include_sites=re.escape(chosen), poll__lookback="1h", poll__interval="5m")
        await exporter.adopt(given(changed))
        assert poller.result.rows.keys
        assert {key.site for key in poller.result.rows.keys} == sites
        assert exporter.http.budget.sent() == requests
        await poller.poll()
        assert {key.site for key in poller.result.rows.keys} == {chosen}
        assert counted(exporter) == before
        clock.now += 300
        await poller.poll()
        assert counted(exporter) > before
        assert exporter.telemetry.registry.get_sample_value("thousandeyes_exporter_poll_interval_seconds") == 300
        await exporter.close()


async def test_what_failed_polls_can_not_replace_stays_until_it_is_old() -> None:
    clock = StillClock()
    async with simulated(TWO, clock=clock) as (simulator, api):
        exporter = Exporter(settings_for(api), clock=Clock(wall=clock))
        await exporter.find()
        (poller,) = exporter.pollers.values()
        await poller.poll()
        await exporter.adopt(given(settings_for(api, filter__exclude_agents="nobody")))
        simulator.faults = parse_faults(["server_error"])
        await poller.poll()
        assert poller.failing
        assert poller.result.rows.keys
        await exporter.close()


async def test_account_groups_that_are_no_longer_named_are_forgotten_at_once() -> None:
    async with simulated(TWO) as (_, api):
        exporter = Exporter(settings_for(api, api__account_groups="1001,1002"))
        await exporter.find()
        await asyncio.gather(*(poller.poll() for poller in exporter.pollers.values()))
        await exporter.publisher.build()
        await exporter.adopt(given(settings_for(api, api__account_groups="1002")))
        assert list(exporter.pollers) == ["1002"]
        await exporter.publisher.build()
        assert exporter.publisher.publication.complete == {"1002"}
        assert exporter.telemetry.registry.get_sample_value("thousandeyes_up", {"aid": "1001"}) is None
        await exporter.close()


async def test_only_a_start_changes_where_it_listens_and_what_the_simulator_does() -> None:
    before = given(settings_for("http://127.0.0.1:9"))
    later = given(
        settings_for("http://127.0.0.1:9", web__telemetry_path="/m", simulator__agents="3", log__level="warn")
    )
    assert before.fixed(later) == [
        "web.telemetry_path: changes only with the next start",
        "simulator.agents: changes only with the next start",
    ]
    assert before.fixed(before) == []


async def test_a_key_that_changes_in_its_file_is_another_setting(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("0123456789abcdef")
    file.chmod(0o600)
    settings = settings_for(
        "http://127.0.0.1:9", metrics__agent_names="hashed", metrics__agent_names_key_file=str(file)
    )
    before = given(settings)
    assert before == given(settings)
    file.write_text("fedcba9876543210")
    assert before != given(settings)
    assert "0123456789abcdef" not in repr(before)
