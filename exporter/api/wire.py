"""Pages of JSON to records: what is the same in every API version.

Paths, names and times of one version stand in `exporter.api.v6` and `exporter.api.v7`; nothing here asks anybody.

The fast way decodes a page in one go. Where that fails, the page is read again record by record, so that one bad record
costs itself and a bad envelope costs the poll.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import attrgetter
from types import GenericAlias
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Meta

from exporter.errors import PollError, Rejection
from exporter.metrics import NETWORK_FIELDS, UNITS
from exporter.model import Agent, Key, NetworkSession, UserSession, label

# What is possible on the wire; what lies outside is no measurement and rejects its record.
Milliseconds = Annotated[float, Meta(ge=0, le=1e6)] | None
Percent = Annotated[float, Meta(ge=0, le=100)] | None
Ratio = Annotated[float, Meta(ge=0, le=1)] | None
Bytes = Annotated[float, Meta(ge=0, le=2**60)] | None
Count = Annotated[float, Meta(ge=0, le=2**53)] | None
EpochMilliseconds = Annotated[float, Meta(ge=0, le=2**53)] | None
Id = Annotated[str, Meta(min_length=1, max_length=256)]


class Leg(msgspec.Struct, gc=False):
    """A network path that was measured: v7 schema *NetworkMetrics*; the RTTs only in the v6 documentation."""

    latency: Milliseconds = None
    jitter: Milliseconds = None
    loss: Percent = None
    avgRtt: Milliseconds = None
    maxRtt: Milliseconds = None
    meanDevRtt: Milliseconds = None


class Ratios(msgspec.Struct, gc=False):
    """Utilization over a period."""

    min: Ratio = None
    max: Ratio = None
    mean: Ratio = None
    median: Ratio = None
    stdDev: Ratio = None
    count: Count = None


class Sizes(msgspec.Struct, gc=False):
    """Used memory over a period."""

    min: Bytes = None
    max: Bytes = None
    mean: Bytes = None
    median: Bytes = None
    stdDev: Bytes = None
    count: Count = None


class SystemMetrics(msgspec.Struct, gc=False):
    """What the agent measured of its own machine."""

    startTimeMs: EpochMilliseconds = None
    endTimeMs: EpochMilliseconds = None
    cpuUtilization: Ratios | None = None
    physicalMemoryUsedBytes: Sizes | None = None
    physicalMemoryTotalBytes: Bytes = None


class WireUser(msgspec.Struct, gc=False, kw_only=True):
    """A user session, but for its id and its times, which every version has in its own way."""

    agentId: Id
    roundId: float
    visitedSite: str | None = None
    protocol: str | None = None
    experienceScore: Ratio = None
    numberOfPages: Count = None


class WireNetwork(msgspec.Struct, gc=False, kw_only=True):
    """A network session, but for its id."""

    roundId: float
    destination: Leg | None = None
    vpn: Leg | None = None
    proxy: Leg | None = None
    systemMetrics: SystemMetrics | None = None


class Location(msgspec.Struct, gc=False):
    """Where an agent is; only the name is of use."""

    locationName: str | None = None


R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Request:
    """What to ask, but for the host and the credentials."""

    method: str
    path: str
    """Also the `route` of the exporter's own metrics: no path that is asked holds an id."""
    query: Mapping[str, str]
    body: bytes | None = None
    """JSON; the same on every page."""


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """One page of a listing."""

    records: list[R]
    next: str | None
    """Address of the next page as the API gave it, not to be trusted; None on the last page."""
    rejected: Counter[Rejection]


class Shape(Generic[R]):
    """How one listing of one version is read."""

    def __init__(
        self,
        results: str,
        record: type[Any],
        convert: Callable[[list[Any]], tuple[list[R], Counter[Rejection]]],
        *,
        links: str,
        next_link: Callable[[Any], object],
        times: tuple[str, ...] = (),
    ) -> None:
        """Describe a listing.

        Args:
            results: key of the records in the envelope.
            record: what one record looks like on the wire; its field `id` is what it is known by.
            convert: makes records of the model of them.
            links: key under which the envelope links to the next page.
            next_link: takes what stands there and returns the address; None or empty text on the last page.
            times: fields of a record that only describe it: left out, and counted, when they can not be read.
        """
        self.results = results
        self.record = record
        self.convert = convert
        self.links = links
        self.next_link = next_link
        self.times = times
        fields: list[Any] = [
            ("records", GenericAlias(list, record), msgspec.field(name=results)),
            ("links", Any, msgspec.field(name=links, default=None)),
        ]
        self.decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(msgspec.defstruct("Envelope", fields))


def decode(body: bytes, shape: Shape[R]) -> Page[R]:
    """Decode one page.

    Raises:
        PollError: `json` where it is none, `schema` where the envelope is not the expected one.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    rejected: Counter[Rejection] = Counter()
    try:
        envelope = shape.decoder.decode(body)
        wire, links = envelope.records, envelope.links
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        patient = _object(body)
        wire, links = _one_by_one(patient, shape, rejected), patient.get(shape.links)
    records, unfit = shape.convert(wire)
    return Page(records, _address(links, shape), rejected + unfit)


def _object(body: bytes) -> dict[str, Any]:
    """Decode JSON patiently: lone surrogates, and numbers that are none, are left to the checks of a record."""
    try:
        decoded = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise PollError("json", f"the API answered with something that is no JSON ({type(error).__name__})") from error
    if not isinstance(decoded, dict):
        raise PollError("schema", f"the API answered with a JSON {type(decoded).__name__}, not with an object")
    return decoded


def _one_by_one(envelope: dict[str, Any], shape: Shape[R], rejected: Counter[Rejection]) -> list[Any]:
    results = envelope.get(shape.results)
    if not isinstance(results, list):
        found = ", ".join(sorted(repr(label(key)) for key in list(envelope)[:8])) or "none"
        raise PollError("schema", f"expected an answer with a list {shape.results!r}, got the keys {found}")
    return [record for result in results if (record := _record(result, shape, rejected)) is not None]


def _record(result: object, shape: Shape[R], rejected: Counter[Rejection]) -> object | None:
    """Check one record; None, and the reason counted, where it is rejected."""
    while True:
        try:
            if _any_non_finite(result):
                raise msgspec.ValidationError("Number out of range")
            checked: object = msgspec.convert(result, shape.record)
            return checked
        except msgspec.ValidationError as error:
            time = next((name for name in shape.times if f"`$.{name}`" in str(error)), None)
            rejected["bad_time" if time else _reason(str(error), shape)] += 1
            if time is None or not isinstance(result, dict):
                return None
            result = {key: value for key, value in result.items() if key != time}


def _any_non_finite(record: object) -> bool:
    """Tell whether a number anywhere in a record is infinite, or none at all."""
    stack = [record]
    while stack:
        match stack.pop():
            case float() as number if not math.isfinite(number):
                return True
            case dict() as mapping:
                stack.extend(mapping.values())
            case list() as items:
                stack.extend(items)
    return False


def _reason(message: str, shape: Shape[R]) -> Rejection:
    """Name the closed reason for msgspec's words, such as ``Expected `float` <= 100.0 - at `$.destination.loss` ``."""
    id_name = next(field.encode_name for field in msgspec.structs.fields(shape.record) if field.name == "id")
    if f"`$.{id_name}`" in message or f"missing required field `{id_name}`" in message:
        return "missing_id"
    if "`$.roundId`" in message or "missing required field `roundId`" in message:
        return "bad_time"
    if "missing required field" in message or "`$.agentId`" in message:
        return "missing_field"
    if "Number out of range" in message:
        return "non_finite"
    return "out_of_range" if ">=" in message or "<=" in message else "bad_type"


def _address(links: object, shape: Shape[R]) -> str | None:
    try:
        address = None if links is None else shape.next_link(links)
    except (AttributeError, KeyError, TypeError) as error:
        raise PollError("schema", "the link to the next page does not have the expected form") from error
    if address is not None and not isinstance(address, str):
        raise PollError("schema", f"the link to the next page is a {type(address).__name__}, not text")
    return address or None


def users(wire: list[Any]) -> tuple[list[UserSession], Counter[Rejection]]:
    """Make user sessions of records with `id`, `date` and `committed` besides the fields of `WireUser`."""
    records, rejected = [], Counter[Rejection]()
    for each in wire:
        if not each.roundId.is_integer() or each.roundId <= 0:
            rejected["bad_time"] += 1
            continue
        key = Key(label(each.agentId), label(each.visitedSite), label(each.protocol))
        score = math.nan if each.experienceScore is None else each.experienceScore
        pages = math.nan if each.numberOfPages is None else each.numberOfPages
        delay = (each.committed - each.date).total_seconds() if each.committed and each.date else math.nan
        records.append(UserSession(each.id, key, int(each.roundId), (score, pages), delay))
    return records, rejected


_EMPTY = {
    "destination": Leg(),
    "vpn": Leg(),
    "proxy": Leg(),
    "systemMetrics": SystemMetrics(),
    "cpuUtilization": Ratios(),
    "physicalMemoryUsedBytes": Sizes(),
}
_DIVISORS = np.array([UNITS[field].divisor for field in NETWORK_FIELDS])


def _layout() -> list[tuple[list[str], Callable[[Any], Any], list[int]]]:
    """Return for every inner object its path, what reads its numbers, and the columns that these fill."""
    inner: dict[str, dict[str, int]] = {}
    for column, field in enumerate(NETWORK_FIELDS):
        path, _, name = field.rpartition(".")
        inner.setdefault(path, {})[name] = column
    return [(path.split("."), attrgetter(*names), list(names.values())) for path, names in inner.items()]


_LAYOUT = _layout()


def networks(wire: list[Any]) -> tuple[list[NetworkSession], Counter[Rejection]]:
    """Make network sessions of records with `id` besides the fields of `WireNetwork`."""
    kept = [each for each in wire if each.roundId.is_integer() and each.roundId > 0]
    matrix = np.empty((len(kept), len(NETWORK_FIELDS)))
    for path, read, columns in _LAYOUT:
        objects: list[Any] = kept
        for name in path:
            objects = [getattr(each, name) or _EMPTY[name] for each in objects]
        matrix[:, columns] = np.array([read(each) for each in objects], dtype=np.float64).reshape(-1, len(columns))
    packed = (matrix / _DIVISORS).tobytes()
    width = len(NETWORK_FIELDS) * 8
    records = [
        NetworkSession(each.id, int(each.roundId), packed[start : start + width])
        for each, start in zip(kept, range(0, len(packed), width), strict=True)
    ]
    return records, Counter({"bad_time": len(wire) - len(kept)}) if len(kept) < len(wire) else Counter()


def seconds(when: datetime | None) -> float:
    """Return Unix seconds of a time that is in UTC, said or not; NaN for None."""
    if when is None:
        return math.nan
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


class WireAgent(msgspec.Struct, gc=False, kw_only=True):
    """An agent, but for its id, name and times, which every version has in its own way."""

    platform: str | None = None
    version: str | None = None
    osVersion: str | None = None
    location: Location | None = None


def agent(each: WireAgent, id_: str, name: str | None, last_seen: datetime | None) -> Agent:
    """Make an agent of the model."""
    return Agent(
        id=label(id_),
        name=label(name),
        platform=label(each.platform),
        version=label(each.version),
        os_version=label(each.osVersion),
        location=label(each.location.locationName if each.location else None),
        last_seen=seconds(last_seen),
    )
