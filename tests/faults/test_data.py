"""Rows D: what stands in the answers."""

import json
import math
import struct
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import astuple
from servers import exporting, simulated
from test_prometheus import PREFIX, scraping
from virtual import Patient
from wires import LISTINGS, Record, changed, envelope, id_name, measured, payload, record, shape

from exporter.errors import PollError
from exporter.model import MAX_LABEL, UserSession
from exporter.simulator import World
from faults.conftest import Trial, row, trial
from faults.listings import at_once, only, page, says, sessions
from faults.test_http import most_memory

BOTH = {"v6": "v6", "v7": "v7"}
OF_BOTH = {f"{version}_{listed}": (version, listed) for version, listed in LISTINGS}
AID = "1001"


async def reason(t: Trial) -> str:
    """Ask for both listings, and return why that failed."""
    with pytest.raises(PollError) as caught:
        await t.exporter.source.sessions(AID, 0, 60, Patient())
    return caught.value.reason


def lets(t: Trial, version: str, listed: str, body: str | bytes) -> None:
    """Answer one of the listings with these bytes, and the other one with none."""
    empty = page(version, "users" if listed == "networks" else "networks", [])
    t.api.choose = says(body, empty) if listed == "users" else says(empty, body)


async def poll(t: Trial, version: str, users: list[Record], networks: list[Record]) -> dict[str, int]:
    """Poll just these records, and return what was rejected."""
    before = rejected(t)
    t.api.choose = only(version, users, networks)
    await t.polls()
    assert t.failed == {}
    return dict(rejected(t) - before)


def rejected(t: Trial) -> Counter[str]:
    registry = t.exporter.telemetry.registry
    samples = [sample for family in registry.collect() for sample in family.samples]
    name = "thousandeyes_exporter_records_rejected_total"
    return Counter({each.labels["reason"]: int(each.value) for each in samples if each.name == name})


def made(t: Trial) -> dict[str, tuple[Any, Any]]:
    """Return the stored sessions that a row made, by the last part of their ids."""
    (poller,) = t.exporter.pollers.values()
    return {user.id.rpartition(":")[2]: (user, network) for user, network in poller.result.pairs if "made:" in user.id}


async def values(t: Trial, **labels: str) -> dict[str, float]:
    """Return the published values of series with these labels, by family."""
    found = {}
    for name, series in (await t.scrape()).items():
        for each, value in series.items():
            if name.startswith(PREFIX) and labels.items() <= dict(each).items() and "site_" not in name:
                assert name not in found, f"two of {labels}"
                found[name.removeprefix(PREFIX)] = value
    return found


@row("D01", v6_users=("v6", "users"), v7_users=("v7", "users"), v7_networks=("v7", "networks"))
async def test_a_page_that_is_cut_anywhere_is_none(case: tuple[str, str]) -> None:
    version, listed = case
    async with trial(api__version=version) as t, t.fault():
        body = page(version, listed, [sessions(version, listed)]).encode()
        t.api.delay = at_once
        before = await t.text()
        for end in range(len(body)):
            lets(t, version, listed, body[:end])
            assert await reason(t) == "json", body[:end]
        lets(t, version, listed, body)
        await t.exporter.source.sessions(AID, 0, 60, Patient())
        assert before.count(PREFIX) == (await t.text()).count(PREFIX)


@row("D02", users="user-sessions", networks="network-sessions")
async def test_the_documentations_own_bodies_as_they_are_printed_are_no_json(case: str) -> None:
    async with trial(api__version="v6") as t, t.fault():
        lets(t, "v6", case.split("-", maxsplit=1)[0].replace("user", "users").replace("network", "networks"),
             payload(f"v6/{case}.printed.txt"))  # fmt: skip
        await t.polls()
        assert t.failed == {"json": 1}


@row(
    "D03",
    latin_1=lambda text: text.encode("latin-1"),
    utf_16=lambda text: text.encode("utf-16"),
    utf_32=lambda text: text.encode("utf-32"),
    half_a_character=lambda text: text.encode().replace(b"\xc3\xa9", b"\xc3"),
    byte_order_mark=lambda text: text.encode("utf-8-sig"),
)
async def test_another_encoding_is_no_json(case: Callable[[str], bytes]) -> None:
    async with trial() as t, t.fault():
        users = [sessions("v7", "users", visitedSite="café.example")]
        body = json.dumps(envelope("v7", "users", *users), ensure_ascii=False)
        lets(t, "v7", "users", case(body))
        await t.polls()
        good = case(body).startswith(b"\xef\xbb\xbf")
        assert t.failed == ({} if good else {"json": 1})
        assert ('site="café.example"' in await t.text()) == good


@row("D05", wire="odd_labels")
async def test_any_text_stands_on_one_line_and_is_read_back(case: str) -> None:
    """That a real Prometheus reads the same is the other case."""
    odd = {
        'quo"ted\\': 'quo"ted\\', "two\nlines": "two\nlines", "a\x00b\x1b[31m": "a\ufffdb\ufffd[31m",
        "to\u202eleft": "to\ufffdleft", "zero\u200bwidth": "zero\ufffdwidth", "line\u2028end": "line end",
        "cr\r\nlf": "cr \nlf", "half \ud800": "half \ufffd", "snow☃man": "snow☃man",
        "{le='1'} 1 # eof": "{le='1'} 1 # eof",
    }  # fmt: skip
    async with trial() as t, t.fault(case):
        users = [sessions("v7", "users", n, visitedSite=site, agentId=f"odd-{n}") for n, site in enumerate(odd)]
        assert await poll(t, "v7", users, []) == {}
        text = await t.text()
        series = (await t.scrape())["thousandeyes_endpoint_sessions"]
        for n, site in enumerate(odd.values()):
            found = [dict(labels)["site"] for labels in series if dict(labels)["agent"] == f"odd-{n}"]
            assert found == [site]
        assert all(line.isprintable() for line in text.splitlines())
        assert text.count('agent="odd-') == sum(line.count('agent="odd-') for line in text.split("\n"))


@row("D05", real=True, prometheus="odd_labels")
async def test_prometheus_reads_back_every_label_value_as_it_was(case: str, tmp_path: Path) -> None:
    world = World(agents=30, sites=4)
    async with (
        simulated(world, faults=[case]) as (_, api),
        exporting(api) as (exporter, address),
        scraping(address, tmp_path) as prometheus,
    ):
        assert await prometheus.value("up") == 1
        result = exporter.pollers[AID].result
        found = {(agent, site, protocol) for _, _, agent, site, protocol in await prometheus.sessions()}
        assert found == {astuple(key) for key in result.rows.keys}
        sites = {site for _, site, _ in found}
        assert {
            'quo"ted.example.com',
            "back\\slash.example.com",
            "new\nline.example.com",
            "snow☃man 🦔.example.com",
            "half \ufffd a pair.example.com",
            "{le=\"0.1\",job='x'} 1 # eof",
            "",
        } <= sites
        infos = {
            labels["agent"]: labels.get("agent_name", "") for labels, _ in await prometheus.query(f"{PREFIX}agent_info")
        }
        assert infos == {agent.id: agent.name for agent in result.agents}
        assert {'quo"ted.example.com', "back\\slash.example.com", "new\nline.example.com"} <= set(infos.values())


@row("D07", **BOTH)
async def test_names_of_100_kb_are_cut_and_stay_two(case: str) -> None:
    async with trial(api__version=case) as t, t.fault():
        users = [
            sessions(case, "users", n, visitedSite="x" * 100_000 + end, agentId="long") for n, end in enumerate("ab")
        ]
        assert await poll(t, case, users, []) == {}
        series = (await t.scrape())["thousandeyes_endpoint_sessions"]
        sites = {dict(labels)["site"] for labels in series if dict(labels)["agent"] == "long"}
        assert len(sites) == 2
        assert {site[: MAX_LABEL + 1] for site in sites} == {"x" * MAX_LABEL + "…"}
        assert all(len(site) == MAX_LABEL + 9 for site in sites)


@row("D10", deep=1000, deeper=100_000)
async def test_deep_nesting_is_no_page(case: int) -> None:
    """What is deep but whole in a field that nobody reads may cost its record alone."""
    insides = ("[" * case + "]" * case, '{"a":' * case + "0" + "}" * case, "[" * case)
    async with trial() as t, t.fault():
        for number, inside in enumerate(insides * 2):
            around = '{"a": INSIDE}' if number < len(insides) else '{"results": [{"id": "a", "b": INSIDE}]}'
            lets(t, "v7", "users", around.replace("INSIDE", inside))
            await t.polls()
            assert sum(t.failed.values()) == number + 1 or number >= len(insides)
        lets(t, "v7", "users", insides[0])
        await t.polls()
        assert set(t.failed) <= {"json", "schema"}
        assert t.failed["json"] > 0


def paths(of: Record, above: str = "") -> list[str]:
    """Return the paths of all fields, at every depth."""
    inner = [path for name, value in of.items() if isinstance(value, dict) for path in paths(value, f"{above}{name}.")]
    return [*(above + name for name in of), *inner]


def damaged(version: str, damages: list[tuple[str, str, Any]]) -> tuple[list[Record], list[Record]]:
    """Return both listings of one session for each damage: listing, path, value."""
    users, networks = [], []
    for n, (listed, path, value) in enumerate(damages):
        both = {name: sessions(version, name, n) for name in ("users", "networks")}
        both["users"]["agentId"] = f"damaged-{n}"
        both[listed] = changed(both[listed], path, value)
        users.append(both["users"])
        networks.append(both["networks"])
    return users, networks


def all_measured(pair: tuple[Any, Any]) -> dict[str, float]:
    user, network = pair
    return {**measured(user), **(measured(network) if network else {})}


@row("D12", **{f"{version}_{name}": (version, value) for version in BOTH for name, value in {
    "null": None, "missing": ...,
}.items()})  # fmt: skip
async def test_a_field_that_is_not_sent_is_missing_alone(case: tuple[str, Any]) -> None:
    version, value = case
    damages = [(listed, path, value) for listed in ("users", "networks") for path in paths(record(version, listed))]
    needed = {("users", "agentId"): "missing_field", ("users", "roundId"): "missing_field",
              ("networks", "roundId"): "missing_field"} | {
                  (listed, id_name(version)): "missing_id" for listed in ("users", "networks")}  # fmt: skip
    async with trial(api__version=version) as t, t.fault():
        assert await poll(t, version, *damaged(version, damages)) == Counter(needed.values())
        found = made(t)
        whole = all_measured(max(found.values(), key=lambda pair: len(all_measured(pair))))
        assert len(whole) > 20
        for n, (listed, path, _) in enumerate(damages):
            number = f"{n}"
            if (listed, path) in needed:
                assert (number in found) == (listed == "networks"), path
                assert listed == "users" or found[number][1] is None, "its other half goes without"
                continue
            left = {name: it for name, it in whole.items() if name != path and not name.startswith(f"{path}.")}
            assert all_measured(found[number]) == left, path


WRONG: dict[str, Any] = {"truth": True, "text": "150", "list": [0.5], "object": {}, "empty_text": ""}


@row("D13", **{f"{version}_{name}": (version, value) for version in BOTH for name, value in WRONG.items()})
async def test_a_field_of_the_wrong_type_is_not_guessed(case: tuple[str, Any]) -> None:
    version, value = case
    fields = [(listed, path) for listed in ("users", "networks") for path in paths(record(version, listed))]
    damages = [(listed, path, value) for listed, path in fields]

    def why(listed: str, path: str) -> str | None:
        """Return the reason; None where the value is as good as another, or where nobody reads the field."""
        texts = {"agentId", id_name(version)} | ({"visitedSite", "protocol"} if listed == "users" else set())
        unread = {"port", "date"} | ({"agentId"} if listed == "networks" else set())
        objects = {"destination", "vpn", "proxy", "systemMetrics"}
        objects |= {f"systemMetrics.{name}" for name in ("cpuUtilization", "physicalMemoryUsedBytes")}
        if listed == "users" and path in ("date", "committed", "roundId"):
            return "bad_time"
        if path == "roundId":
            return "bad_time"
        if path in unread or path.endswith("target") or (path in objects and value == {}):
            return None
        if isinstance(value, str) and path in texts:
            if value or path in ("visitedSite", "protocol"):
                return None
            return "missing_id" if path == id_name(version) else "missing_field"
        return "bad_type"

    async with trial(api__version=version) as t, t.fault():
        expected = Counter(it for listed, path in fields if (it := why(listed, path)))
        assert await poll(t, version, *damaged(version, damages)) == expected
        assert expected["bad_type"] > 20
        for pair in made(t).values():
            assert 1.0 not in all_measured(pair).values(), "true is no number"


IMPOSSIBLE = [
    ("destination.latency", -1), ("destination.loss", 101), ("destination.loss", 100.00000000000001),
    ("destination.loss", -1), ("destination.jitter", 1_000_001), ("systemMetrics.cpuUtilization.mean", 1.5),
    ("systemMetrics.cpuUtilization.stdDev", 1.0000000000000002), ("systemMetrics.physicalMemoryTotalBytes", 2.0**61),
]  # fmt: skip


@row("D14", **BOTH)
async def test_a_number_that_can_not_be_costs_its_record_and_is_not_clamped(case: str) -> None:
    damages = [("networks", *each) for each in IMPOSSIBLE] + [("users", "port", port) for port in (0, 65536, 80.5)]
    async with trial(api__version=case) as t, t.fault():
        assert await poll(t, case, *damaged(case, damages)) == {"out_of_range": len(IMPOSSIBLE)}
        found = made(t)
        gone = [found[str(n)][1] is None for n in range(len(damages))]
        assert gone == [True] * len(IMPOSSIBLE) + [False] * 3, "a port is nobody's business"


TIMES = [
    "2017-02-30 11:58:42", "2017-02-30T11:58:42Z", "0000-01-01T00:00:00Z", "2017-03-22T24:00:00Z",
    "2017-03-22 24:00:00", "2016-12-31T23:59:60Z", "2016-12-31 23:59:60", "yesterday", "", "half \ud800 a time",
    1490183922, 1490183922000, 1.5, True, [], {},
]  # fmt: skip
OTHERS = {"v6": "2017-03-22T11:58:44+02:00", "v7": "2017-03-22 11:58:44"}


@row("D16", **BOTH)
async def test_a_time_that_is_none_costs_only_itself(case: str) -> None:
    times = [*TIMES, OTHERS[case]]
    damages = [("users", field, value) for field in ("date", "committed") for value in times]
    async with trial(api__version=case) as t, t.fault():
        assert await poll(t, case, *damaged(case, damages)) == {"bad_time": len(damages)}
        found = made(t)
        assert len(found) == len(damages)
        assert len({tuple(sorted(all_measured(pair).items())) for pair in found.values()}) == 1
        assert all(math.isnan(user.commit_delay) for user, _ in found.values())


NO_PAGES = ["[]", "[{}]", "7", "null", '{"RESULTS": {}}', '{"RESULTS": "text"}', "{}"]


@row("D17", **OF_BOTH)
async def test_another_form_than_an_object_with_a_list_is_no_page(case: tuple[str, str]) -> None:
    version, listed = case
    async with trial(api__version=version) as t, t.fault():
        for number, body in enumerate(NO_PAGES):
            lets(t, version, listed, body.replace("RESULTS", shape(version, listed).results))
            await t.polls()
            assert t.failed == {"schema": number + 1}, body


@row("D18", **BOTH)
async def test_ten_thousand_unknown_fields_are_nothing(case: str) -> None:
    more = {f"field{n}": {"of": ["what", n]} for n in range(10_000)}
    async with trial(api__version=case) as t, t.fault():
        users, networks = ([sessions(case, listed) | more] for listed in ("users", "networks"))
        assert await poll(t, case, users, networks) == {}
        before = most_memory(reset=True)
        for _ in range(5):
            assert await poll(t, case, users, networks) == {}
        assert most_memory() - before <= 4 * 1024 * 1024
        assert (await values(t, agent="3fde6422"))["sessions"] == 1


@row("D19", **BOTH)
async def test_sessions_with_the_same_labels_are_one_series(case: str) -> None:
    async with trial(api__version=case) as t, t.fault():
        users = [sessions(case, "users", n) for n in range(2)]
        networks = [sessions(case, "networks", n, destination__latency=latency) for n, latency in enumerate((100, 300))]
        assert await poll(t, case, users, networks) == {}
        found = await values(t, agent="3fde6422")
        assert (found["sessions"], found["pages"], found["latency_seconds"]) == (2, 6, pytest.approx(0.2))
        lines = [line.rpartition(" ")[0] for line in (await t.text()).splitlines()]
        assert len(set(lines)) == len(lines)


@row("D20", **BOTH)
async def test_names_that_mean_the_same_are_one_and_empty_ones_are_left_out(case: str) -> None:
    """Spaces at the ends, case, the dot at the end, a port and the normal form of a site make no difference."""
    same = ["café.example", " café.example ", "CAFÉ.example", "cafe\u0301.example", "café.example.", "café.example:443"]
    async with trial(api__version=case) as t, t.fault():
        users = [sessions(case, "users", n, visitedSite=site, agentId="same") for n, site in enumerate(same)]
        users += [sessions(case, "users", n, visitedSite=site, agentId="empty") for n, site in ((10, ""), (11, None))]
        users += [sessions(case, "users", 12, visitedSite=" ", protocol="", agentId="empty")]
        assert await poll(t, case, users, []) == {}
        series = (await t.scrape())["thousandeyes_endpoint_sessions"]
        found = {labels: value for labels, value in series.items() if dict(labels)["agent"] in ("same", "empty")}
        aid = ("aid", AID)
        assert found == {
            frozenset({aid, ("agent", "same"), ("site", "café.example"), ("protocol", "https")}): 6,
            frozenset({aid, ("agent", "empty"), ("protocol", "https")}): 2,
            frozenset({aid, ("agent", "empty")}): 1,
        }


@row("D21")
async def test_nothing_in_the_data_becomes_the_name_of_a_label() -> None:
    odd = ["__name__", "job", "instance", "le", "aid"]
    async with trial() as t, t.fault():
        before = await names(t)
        more = dict.fromkeys(odd, "value-of-a-name")
        users = [sessions("v7", "users", n, visitedSite=name) | more for n, name in enumerate(odd)]
        assert await poll(t, "v7", users, [sessions("v7", "networks", n) | more for n in range(5)]) == {}
        assert await names(t) == before
        text = await t.text()
        assert all(f'site="{name}"' in text for name in odd)
        assert "value-of-a-name" not in text


async def names(t: Trial) -> set[str]:
    """Return the names of all labels."""
    return {name for series in (await t.scrape()).values() for labels in series for name, _ in labels}


@row(
    "D24",
    minus_zero=("destination.loss", "-0.0", 100),
    exponent=("destination.latency", "1E5", 1000),
    seventeen_digits=("systemMetrics.physicalMemoryTotalBytes", "17069891584.000001", 1),
    shortest=("systemMetrics.cpuUtilization.mean", "0.10000000000000001", 1),
    more_than_2_53=("systemMetrics.physicalMemoryTotalBytes", "9007199254740993", 1),
    least=("systemMetrics.physicalMemoryTotalBytes", "5e-324", 1),
)
async def test_a_number_is_the_nearest_double(case: tuple[str, str, float]) -> None:
    path, literal, divisor = case
    family = {"destination.loss": "loss_ratio", "destination.latency": "latency_seconds"}.get(
        path, "memory_size_bytes" if "Memory" in path else "cpu_utilization_ratio"
    )
    async with trial() as t, t.fault():
        body = page("v7", "networks", [changed(sessions("v7", "networks"), path, "VALUE")])
        t.api.choose = says(page("v7", "users", [sessions("v7", "users")]), body.replace('"VALUE"', literal))
        await t.polls()
        found = (await values(t, agent="3fde6422"))[family]
        assert struct.pack("d", found) == struct.pack("d", float(literal) / divisor)


@row("D25", **BOTH)
async def test_pages_that_were_damaged_at_random_are_read_or_have_a_reason(case: str) -> None:
    """Real polls of damaged bytes; how tests/fuzz spoils replies by the hundred thousand is said there."""
    chance = Random(f"damage {case}")  # noqa: S311
    async with trial(api__version=case, poll__interval="10s") as t, t.fault():
        t.api.delay = at_once
        good = {
            listed: page(case, listed, [sessions(case, listed, n) for n in range(3)]).encode()
            for listed in ("users", "networks")
        }
        for _ in range(100):
            listed = chance.choice(list(good))
            body = bytearray(good[listed])
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(body))
                body[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
            bodies = {**good, listed: bytes(body)}
            t.api.choose = says(bodies["users"], bodies["networks"])
            await t.polls()
        assert set(t.failed) <= {"json", "schema", "pagination_origin"}
        assert 20 < sum(t.failed.values()) < 100
        assert (t.value("series") or 0) <= t.exporter.settings.metrics.max_series
        for user, network in made(t).values():
            assert isinstance(user, UserSession)
            assert not any(map(math.isinf, all_measured((user, network)).values()))
