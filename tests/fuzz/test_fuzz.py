"""What fuzzing holds in every run of the tests: many spoiled replies, requests and files, each run of another seed.

`make fuzz` goes on for as long as it is told, guided by coverage. What broke once stands at the end.
"""

# ruff: noqa: S311, T201 - what goes wrong is not a secret; the seed is for people

import asyncio
import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from making import anything
from servers import ROOT
from virtual import Virtual
from wires import envelope, page, record, shape

from exporter.api import VERSIONS
from exporter.api.wire import Page, decode
from exporter.clock import ApiClock
from exporter.errors import PollError
from fuzz import files, polls, replies, scrapers, transport

REPLIES = 200_000
"""Of every run, by as many processes as there are processors here and in CI."""
PROCESSES = 2


@pytest.fixture(scope="module")
def seed() -> str:
    """Return the seed of this run, or that of another one from the variable FUZZ_SEED."""
    return os.environ.get("FUZZ_SEED") or secrets.token_hex(4)


@pytest.mark.timeout(400)
async def test_whatever_the_api_replies_what_is_published_is_sound(seed: str) -> None:
    # Not measured for coverage, which would take three times as long.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    running = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "fuzz", f"--replies={REPLIES // PROCESSES}", f"--seed={seed}-{number}",
            cwd=ROOT / "tests", env=environment, stdout=asyncio.subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]  # fmt: skip
    for process in running:
        said, _ = await process.communicate()
        print(said.decode())
        assert process.returncode == 0, said.decode()


async def test_whatever_comes_over_the_wire_ends_as_a_reply_or_with_a_closed_reason(seed: str) -> None:
    ends = await transport.fetched(seed, 500)
    assert {"200", "protocol"} <= ends.keys()


@pytest.mark.parametrize("protected", [False, True])
def test_whatever_a_scraper_sends_the_server_goes_on(seed: str, protected: bool, tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text(files.WEB_EXAMPLES[0])
    with scrapers.serving(web__config_file=tmp_path / "web.yml" if protected else None) as server:
        for number in range(500 if protected else 3000):
            rng = Random(f"{seed}/{number}")
            data = scrapers.sent(rng)
            cut = rng.randrange(len(data) + 1)
            try:
                server.hold(data[:cut], data[cut:])
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, number {number}: {data!r}") from error
        server.good(401 if protected else 200)


@pytest.mark.parametrize(("read", "examples"), [("settings", files.EXAMPLES), ("web_config", files.WEB_EXAMPLES)])
def test_whatever_a_file_says_it_is_good_or_its_problems_are_told(
    read: str, examples: tuple[str, ...], seed: str
) -> None:
    outcomes = set()
    with ExitStack() as stack:
        file = files.Files()
        stack.callback(file.close)
        for number in range(500):
            data = files.written(Random(f"{seed}/{number}"), examples)
            try:
                outcomes.add(getattr(file, read)(data))
            except Exception as error:
                raise AssertionError(f"seed {seed}, number {number}: {data!r}") from error
    assert outcomes == {True, False} or read == "web_config"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="atheris has no wheels for this machine")
def test_every_guided_target_takes_its_seeds() -> None:
    from fuzz import guided  # noqa: PLC0415  it needs atheris

    for name, make in guided.TARGETS.items():
        with ExitStack() as stack:
            target = make(stack)
            taken = [target(seed) for seed in list(guided.seeds(name))[:40]]
        assert taken, name


# The same, by Hypothesis, which finds less and says it shortly.

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(anything, inner, max_size=4),
    max_leaves=8,
)
listings = pytest.mark.parametrize(
    ("version", "listing"), [(version, it) for version in VERSIONS for it in ("users", "networks", "agents", "groups")]
)


@listings
@settings(max_examples=60)
@given(data=st.data())
def test_a_record_with_any_field_is_read_or_rejected(version: str, listing: str, data: st.DataObject) -> None:
    whole = record(version, "users") | record(version, "networks") | {"aid": "1", "name": "a", "lastSeen": None}
    names = st.sampled_from(sorted(whole)) | anything
    changed = {**whole, **data.draw(st.dictionaries(names, json_values, max_size=3))}
    found = _read(json.dumps(envelope(version, listing, changed, whole)).encode(), version, listing)
    assert found is None or len(found.records) + found.rejected.total() >= 2


@listings
@settings(max_examples=60)
@given(body=st.binary(max_size=200) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_a_page_or_a_closed_reason(version: str, listing: str, body: bytes) -> None:
    _read(body, version, listing)


def _read(body: bytes, version: str, listing: str) -> Page[object] | None:
    try:
        return decode(body, shape(version, listing))
    except PollError as error:
        polls.checked(error)
        return None


# Time.


def _sized(make: Callable[[int], object]) -> Callable[[int], bytes]:
    return lambda size: json.dumps(make(size)).encode()


GOOD, BAD = record("v7", "users"), {**record("v7", "users"), "experienceScore": "1"}
SHAPES: dict[str, Callable[[int], bytes]] = {
    "records": _sized(lambda size: envelope("v7", "users", *[{**GOOD, "id": f"{n}"} for n in range(size)])),
    "bad-records": _sized(lambda size: envelope("v7", "users", *[BAD] * size)),
    "half-characters": _sized(lambda size: envelope("v7", "users", *[{**GOOD, "date": "\ud800"}] * size)),
    "unknown-fields": _sized(lambda size: envelope("v7", "users", {**BAD, **{f"x{n}": n for n in range(10 * size)}})),
    "unknown-keys": _sized(lambda size: {f"x{n}": n for n in range(10 * size)}),
    "long-label": _sized(lambda size: envelope("v7", "users", {**GOOD, "visitedSite": "\u202e" * 100 * size})),
    "wide": _sized(lambda size: envelope("v7", "users", {**BAD, "x": [[]] * 20 * size})),
    "digits": lambda size: json.dumps(envelope("v7", "users", GOOD)).encode().replace(b"0.5", b"9" * 100 * size),
    "deep": lambda size: b'{"results":' + b"[" * 100 * size,
}


@pytest.mark.parametrize("name", SHAPES)
def test_eight_times_the_size_takes_about_eight_times_the_time(name: str) -> None:
    small, large = (SHAPES[name](size) for size in (250, 2000))

    def seconds(body: bytes) -> float:
        began = time.process_time()
        _read(body, "v7", "users")
        return time.process_time() - began

    ratio = min(seconds(large) for _ in range(3)) / max(min(seconds(small) for _ in range(5)), 1e-4)
    assert ratio < 30, "64 would be quadratic"


# What broke once.


@pytest.mark.parametrize(("version", "listing", "time_"), [
    *((version, "users", "date") for version in VERSIONS), *((version, "agents", "lastSeen") for version in VERSIONS),
])  # fmt: skip
def test_half_a_character_in_the_name_of_a_field_does_not_keep_the_reader_for_ever(
    version: str, listing: str, time_: str
) -> None:
    changed = {**record(version, "users"), "\ud800": 1, time_: None}
    found = page(version, listing, changed)
    assert found.records == []
    assert found.rejected.total() >= 1


@pytest.mark.parametrize("date", replies.FAR)
def test_a_date_from_which_no_range_can_be_written_is_none(date: str) -> None:
    clock = ApiClock(Virtual().clock)
    clock.observe(date)
    for api in VERSIONS.values():
        assert api.user_sessions("", int(clock.now()) - 10**6, int(clock.now()) + 10**6, {})


def test_a_space_that_is_missing_behind_a_colon_tells_no_token() -> None:
    with ExitStack() as stack:
        file = files.Files()
        stack.callback(file.close)
        assert not file.settings(f"api: {{token:{files.SECRET}}}\n".encode())
