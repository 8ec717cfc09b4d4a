"""What the pretend API does wrong on request: a table of faults, and when each strikes.

Left to others: everything that goes right, and sending the bytes (server). A fault acts at one of three points: it
answers **instead** of the API, it spoils the **payload** before it is encoded, or it alters the **reply**; a reply can
ask to be sent late or cut off. Each is a function of the call, the seed and the number of the request alone.
"""

# ruff: noqa: S311 - what goes wrong is not a secret

from __future__ import annotations

import difflib
import math
import re
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from random import Random
from typing import Any
from zlib import crc32

from exporter.simulator import v7
from exporter.simulator.wire import PROBLEM, RATE_HEADERS, RATE_REMAINING, Call, Payload, Reply, dump_json
from exporter.simulator.world import DAY, HOUR

LISTS = {"results", "userSessions", "networkSessions", "agents", "endpointAgents"}
SLOW = 5.0
"""Seconds that the slow answer takes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong; `instead` is also told whether the last account group is asked for."""

    help: str
    instead: Callable[[Call, bool], Reply | None] | None = None
    payload: Callable[[Payload, Call], None] | None = None
    reply: Callable[[Reply], Reply] | None = None


@dataclass(frozen=True, slots=True)
class FaultSpec:
    """A fault and when it strikes: a share of the requests, between two times.

    `start` and `end` are seconds after the start of the simulator, or seconds of the day in UTC if `daily`.
    """

    name: str
    share: float = 1.0
    start: float = 0.0
    end: float = math.inf
    daily: bool = False

    @property
    def fault(self) -> Fault:
        """What it does."""
        return FAULTS[self.name]

    def strikes(self, elapsed: float, call: Call, seed: int) -> bool:
        """Tell whether it strikes a request, `elapsed` seconds after the start of the simulator."""
        when = call.now % DAY if self.daily else elapsed
        scheduled = self.start <= when < self.end
        if self.daily and self.end <= self.start:  # over midnight
            scheduled = when >= self.start or when < self.end
        return scheduled and (self.share == 1 or Random(f"{seed}/{self.name}/{call.number}").random() < self.share)


SPEC = re.compile(r"(?P<name>\w+)(?:=(?P<share>[^@]+))?(?:@(?P<when>.+))?")
CLOCK = re.compile(r"(\d\d):([0-5]\d)-(\d\d):([0-5]\d)")
SPAN = re.compile(r"(\d+)([smhd])(?:\+(\d+)([smhd]))?")
SECONDS = {"s": 1, "m": 60, "h": HOUR, "d": DAY}


def parse_faults(specs: Iterable[str]) -> tuple[FaultSpec, ...]:
    """Read faults such as `server_error=0.2`, `rate_limited@10m+5m`, `unauthorized@09:00-09:30`.

    Raises:
        ValueError: a name is not in the table, a share not in (0, 1], or a schedule not understood; it says which.

    """
    return tuple(_parse(spec) for spec in specs)


def _parse(spec: str) -> FaultSpec:
    match = SPEC.fullmatch(spec.strip())
    if not match:
        raise ValueError(f"fault {spec!r}: expected NAME, NAME=SHARE, NAME@SCHEDULE or NAME=SHARE@SCHEDULE")
    name, share, when = match.group("name", "share", "when")
    if name not in FAULTS:
        near = difflib.get_close_matches(name, FAULTS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(FAULTS)}"
        raise ValueError(f"fault {spec!r}: no fault is called {name!r}; {hint}")
    return _schedule(FaultSpec(name, _share(spec, share)), spec, when)


def _share(spec: str, share: str | None) -> float:
    if share is None:
        return 1.0
    if not re.fullmatch(r"\d+(\.\d+)?", share) or not 0 < float(share) <= 1:
        raise ValueError(f"fault {spec!r}: the share {share!r} is not a number above 0 and up to 1")
    return float(share)


def _schedule(fault: FaultSpec, spec: str, when: str | None) -> FaultSpec:
    if when is None:
        return fault
    if match := CLOCK.fullmatch(when):
        hours, minutes, until_hours, until_minutes = map(int, match.groups())
        start, end = hours * HOUR + minutes * 60, until_hours * HOUR + until_minutes * 60
        if start < DAY and end <= DAY and start != end:
            return replace(fault, start=start, end=end, daily=True)
    elif match := SPAN.fullmatch(when):
        start = int(match[1]) * SECONDS[match[2]]
        return replace(fault, start=start, end=start + int(match[3]) * SECONDS[match[4]] if match[3] else math.inf)
    raise ValueError(f"fault {spec!r}: the schedule {when!r} is neither like 10m+5m nor like 09:00-09:30 (UTC)")


def describe() -> str:
    """Return the table as text for people, one fault a line, and how to name them."""
    width = max(map(len, FAULTS))
    usage = """\
        NAME             every request
        NAME=0.2         a share of the requests
        NAME@10m+5m      from 10 minutes after the start, for 5 minutes
        NAME@09:00-09:30 between two times of the day (UTC)
        NAME=0.5@10m+5m  both
    """
    return "\n".join([textwrap.dedent(usage), *(f"{name:{width}}  {fault.help}" for name, fault in FAULTS.items())])


# Instead of an answer.


def _problem(status: int, detail: str, **headers: str | None) -> Callable[[Call, bool], Reply]:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}

    def answer(call: Call, _last_group: bool) -> Reply:
        problem = {"type": "about:blank", "title": detail, "status": status, "instance": call.path}
        return Reply(status, dump_json(problem), PROBLEM, fields)

    return answer


def _fixed(reply: Reply) -> Callable[[Call, bool], Reply]:
    return lambda _call, _last_group: reply


def _forbidden_agents(call: Call, last_group: bool) -> Reply | None:
    listed = re.match(r"/v\d/endpoint[-/]agents", call.path)
    return _problem(403, "Insufficient permissions")(call, last_group) if listed else None


def _forbidden_group(call: Call, last_group: bool) -> Reply | None:
    return _problem(403, "Insufficient permissions")(call, last_group) if last_group else None


def _server_error(call: Call, _last_group: bool) -> Reply:
    return v7.spring_error(call, 500, "Internal Server Error")


MAINTENANCE = "Please bear with us, the ThousandEyes API is currently in maintenance mode."
PORTAL = b"<!DOCTYPE html><html><head><title>Welcome</title></head><body><h1>Please sign in</h1></body></html>\n"
BAD_GATEWAY = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>\n"
HTML = "text/html; charset=utf-8"

# The payload.


def _records(payload: Payload) -> list[Payload]:
    """Return the records of a listing of sessions or agents; none for other answers."""
    return next((payload[key] for key in LISTS & payload.keys()), [])


def _empty(payload: Payload, _call: Call) -> None:
    _records(payload).clear()
    _set_next(payload, None)


def _no_networks(payload: Payload, call: Call) -> None:
    if "network" in call.path:
        _empty(payload, call)


def _duplicate_records(payload: Payload, _call: Call) -> None:
    records = _records(payload)
    records.extend(records[:1])


def _set(*path: str, to: Any) -> Callable[[Payload], None]:
    """Return a change that sets a field, wherever the record has what the path leads through."""

    def change(record: Payload) -> None:
        *way, last = path
        for key in way:
            record = record.get(key) or {}
        if last in record:
            record[last] = to

    return change


def _drop(*names: str) -> Callable[[Payload], None]:
    def change(record: Payload) -> None:
        for name in names:
            record.pop(name, None)

    return change


DAMAGE = (
    _drop("id", "userSessionId"),
    _drop("agentId"),
    _set("agentId", to=12),
    _set("roundId", to="yesterday"),
    _set("roundId", to=-60),
    _set("roundId", to=253_402_300_740),  # the last minute of the year 9999
    _set("numberOfPages", to="3"),
    _set("experienceScore", to=1.5),
    _set("port", to=70_000),
    _set("date", to="2017-02-30 24:00:00"),
    _set("visitedSite", to=["a", "list"]),
    _set("destination", "latency", to="150"),
    _set("destination", "latency", to=-1),
    _set("destination", "loss", to=101.0),
    _set("destination", "jitter", to=True),
    _set("destination", to="unreachable"),
    _set("systemMetrics", "cpuUtilization", "mean", to=1.5),
    _set("systemMetrics", "physicalMemoryUsedBytes", "mean", to=-1.0),
    _set("systemMetrics", to=[]),
    _set("name", to=7),
    _set("agentName", to=7),
)


def _bad_records(payload: Payload, _call: Call) -> None:
    """Damage every fourth record, each in another way."""
    for n, record in enumerate(_records(payload)[::4]):
        DAMAGE[n % len(DAMAGE)](record)


ODD = (
    'quo"ted.example.com',
    "back\\slash.example.com",
    "new\nline.example.com",
    "nul\x00 bell\x07 escape\x1b[31m.example.com",
    "right\u202eto\u202cleft zero\u200bwidth line\u2028separator.example.com",
    "half \ud800 a pair.example.com",
    "snow☃man 🦔.example.com",
    "{le=\"0.1\",job='x'} 1 # EOF",
    "",
    "x" * 100_000 + ".example.com",
)


def _odd_labels(payload: Payload, _call: Call) -> None:
    for n, record in enumerate(_records(payload)[: 20 * len(ODD)]):
        for name in {"visitedSite", "name", "agentName"} & record.keys():
            record[name] = ODD[n % len(ODD)]


NEEDED = {"id", "userSessionId", "agentId", "roundId"}


def _null_fields(payload: Payload, call: Call) -> None:
    rng = Random(call.number)

    def blank(record: Payload) -> None:
        for key, value in record.items():
            if key not in NEEDED and rng.random() < 0.2:
                record[key] = None
            elif isinstance(value, dict):
                blank(value)

    for record in _records(payload):
        blank(record)


def _floats(payload: Payload, _call: Call) -> None:
    for record in _records(payload):
        record.update(_as_floats(record))


def _as_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_floats(each) for key, each in value.items()}
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _masked(payload: Payload, _call: Call) -> None:
    """Put a number in the place of each name, as where the token may not see what identifies people and sites."""
    for record in _records(payload):
        for name in {"visitedSite", "name", "agentName", "computerName"} & record.keys():
            record[name] = str(crc32(record[name].encode()))


def _set_next(payload: Payload, url: str | None, *, null: bool = False) -> None:
    """Point a page to another one; without a URL it is the last, or says so with an explicit `null`."""
    links = payload["pages"] if "pages" in payload else payload.setdefault("_links", {})
    links.pop("next", None)
    if url:
        links["next"] = url if "pages" in payload else {"href": url}
    elif null:
        links["next"] = None


def _next_null(payload: Payload, _call: Call) -> None:
    _set_next(payload, None, null=True)


def _leads_to(url: Callable[[Call, str], str]) -> Callable[[Payload, Call], None]:
    """Point every page of a listing to a URL, made from the call and the name of the parameter with its cursor."""

    def change(payload: Payload, call: Call) -> None:
        if LISTS & payload.keys():
            _set_next(payload, url(call, "pageId" if call.path.startswith("/v6") else "cursor"))

    return change


def _again(call: Call, cursor: str, serial: int = 1) -> str:
    """Return a link to the same page that differs only in what follows the tilde."""
    return call.link(**{cursor: f"{call.params[cursor].partition('~')[0]}~{serial}"})


def _ever_new(call: Call, cursor: str) -> str:
    return _again(call, cursor, call.number)


def _other_host(call: Call, cursor: str) -> str:
    return replace(call, origin="https://api.example.net").link(**{cursor: "next"})


def _other_path(call: Call, cursor: str) -> str:
    return replace(call, path="/v7/credentials").link(**{cursor: "next"})


# The reply.


def _with(**changes: Any) -> Callable[[Reply], Reply]:
    return lambda reply: replace(reply, **changes)


def _headers(**changes: str | None) -> Callable[[Reply], Reply]:
    fields = {name.replace("_", "-"): value for name, value in changes.items()}
    return lambda reply: replace(reply, headers={**reply.headers, **fields})


def _not_json(reply: Reply) -> Reply:
    return replace(reply, body=b'{"results": [{"id": oops, ]')


def _xml(reply: Reply) -> Reply:
    return replace(reply, body=b'<?xml version="1.0"?><response/>', content_type="application/xml")


NO_RATES = dict.fromkeys((name.replace("-", "_") for name in RATE_HEADERS), None)

FAULTS: dict[str, Fault] = {
    "unauthorized": Fault("401, as for a token that has expired", instead=_fixed(v7.unauthorized("an expired token"))),
    "forbidden": Fault("403 for everything", instead=_problem(403, "Insufficient permissions")),
    "forbidden_agents": Fault("403 for the list of agents alone", instead=_forbidden_agents),
    "forbidden_group": Fault("403 for the last account group alone", instead=_forbidden_group),
    "not_found": Fault("404 with an empty body", instead=_fixed(Reply(404, content_type=""))),
    "rate_limited": Fault(
        "429 that tells when the limit is reset",
        instead=_problem(429, "Exhausted rate limit", **{RATE_REMAINING: "0"}),
    ),
    "rate_limited_bare": Fault("429 without a hint", instead=_problem(429, "Exhausted rate limit", **NO_RATES)),
    "server_error": Fault("500", instead=_server_error),
    "bad_gateway": Fault("502 with a page of the proxy", instead=_fixed(Reply(502, BAD_GATEWAY, HTML))),
    "maintenance": Fault(
        "503 with the documented words", instead=_fixed(Reply(503, MAINTENANCE.encode(), "text/plain"))
    ),
    "redirect": Fault(
        "301 to /v7/elsewhere", instead=_fixed(Reply(301, content_type="", headers={"Location": "/v7/elsewhere"}))
    ),
    "slow": Fault("answers after 5 seconds", reply=_with(delay=SLOW)),
    "hang": Fault("never answers", reply=_with(delay=math.inf)),
    "reset": Fault("resets the connection after the headers", reply=_with(cut="headers")),
    "truncated": Fault("hangs up in the middle of the body", reply=_with(cut="body")),
    "html": Fault("200 with the page of a captive portal", instead=_fixed(Reply(200, PORTAL, HTML))),
    "xml": Fault("200 with XML", reply=_xml),
    "not_json": Fault("200 with JSON that is none", reply=_not_json),
    "bad_gzip": Fault("a body that claims to be gzip", reply=_headers(Content_Encoding="gzip")),
    "empty": Fault("lists without a record", payload=_empty),
    "bad_records": Fault("every fourth record has lost a field, or has a wrong type or value", payload=_bad_records),
    "odd_labels": Fault("names with quotes, control characters, lone surrogates, or of 100 kB", payload=_odd_labels),
    "null_fields": Fault("a fifth of the optional fields is null", payload=_null_fields),
    "floats": Fault("integers come as 150.0", payload=_floats),
    "next_loop": Fault("the next page is this page again", payload=_leads_to(_again)),
    "next_endless": Fault("there is always a next page", payload=_leads_to(_ever_new)),
    "next_other_host": Fault(
        "the next page is on another host",
        payload=_leads_to(_other_host),
    ),
    "next_other_path": Fault(
        "the next page is under another path",
        payload=_leads_to(_other_path),
    ),
    "next_null": Fault("the next page is an explicit null", payload=_next_null),
    "duplicate_records": Fault("the first record of a page comes again at its end", payload=_duplicate_records),
    "masked": Fault("numbers for the names of agents and sites, as without the permission", payload=_masked),
    "no_networks": Fault("no network sessions", payload=_no_networks),
    "no_rate_headers": Fault("no headers about the rate limit", reply=_headers(**NO_RATES)),
    "no_date": Fault("no Date header", reply=_headers(Date=None)),
}
