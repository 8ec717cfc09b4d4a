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
from types import GenericAlias
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Meta
from msgspec.structs import astuple

from exporter.errors import PollError, Rejection
from exporter.metrics import NETWORK_FIELDS, UNITS
from exporter.model import Agent, Key, NetworkSession, UserSession, label

# What is possible on the wire; what lies outside is no measurement and rejects its record. Absent is NaN, null is None:
# both become NaN in a record of the model, and the one that is common costs nothing.
Milliseconds = Annotated[float, Meta(ge=0, le=1e6)] | None
Percent = Annotated[float, Meta(ge=0, le=100)] | None
Ratio = Annotated[float, Meta(ge=0, le=1)] | None
Bytes = Annotated[float, Meta(ge=0, le=2**60)] | None
Count = Annotated[float, Meta(ge=0, le=2**53)] | None
EpochMilliseconds = Annotated[float, Meta(ge=0, le=2**53)] | None
Round = Annotated[float, Meta(gt=0, le=2**53, multiple_of=1)]
Id = Annotated[str, Meta(min_length=1, max_length=256)]

ABSENT = math.nan


class Leg(msgspec.Struct, frozen=True, gc=False):
    """A network path that was measured: v7 schema *NetworkMetrics*."""

    latency: Milliseconds = ABSENT
    jitter: Milliseconds = ABSENT
    loss: Percent = ABSENT


class Destination(Leg, frozen=True, gc=False):
    """The path to the site; the round-trip times stand only in the v6 documentation."""

    avgRtt: Milliseconds = ABSENT
    maxRtt: Milliseconds = ABSENT
    meanDevRtt: Milliseconds = ABSENT


class Ratios(msgspec.Struct, frozen=True, gc=False):
    """Utilization over a period."""

    min: Ratio = ABSENT
    max: Ratio = ABSENT
    mean: Ratio = ABSENT
    median: Ratio = ABSENT
    stdDev: Ratio = ABSENT
    count: Count = ABSENT


class Sizes(msgspec.Struct, frozen=True, gc=False):
    """Used memory over a period."""

    min: Bytes = ABSENT
    max: Bytes = ABSENT
    mean: Bytes = ABSENT
    median: Bytes = ABSENT
    stdDev: Bytes = ABSENT
    count: Count = ABSENT


class SystemMetrics(msgspec.Struct, frozen=True, gc=False):
    """What the agent measured of its own machine."""

    startTimeMs: EpochMilliseconds = ABSENT
    endTimeMs: EpochMilliseconds = ABSENT
    physicalMemoryTotalBytes: Bytes = ABSENT
    cpuUtilization: Ratios | None = Ratios()
    physicalMemoryUsedBytes: Sizes | None = Sizes()


class WireUser(msgspec.Struct, gc=False, kw_only=True):
    """A user session, but for its id and its times, which every version has in its own way."""

    agentId: Id
    roundId: Round
    visitedSite: str | None = None
    protocol: str | None = None
    experienceScore: Ratio = ABSENT
    numberOfPages: Count = ABSENT


class WireNetwork(msgspec.Struct, gc=False, kw_only=True):
    """A network session, but for its id."""

    roundId: Round
    destination: Destination | None = Destination()
    vpn: Leg | None = Leg()
    proxy: Leg | None = Leg()
    systemMetrics: SystemMetrics | None = SystemMetrics()


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
        convert: Callable[[list[Any]], list[R]],
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
    return Page(shape.convert(wire), _address(links, shape), rejected)


def _object(body: bytes) -> dict[str, Any]:
    """Decode JSON patiently: lone surrogates, and numbers that are none, are left to the checks of a record."""
    try:
        decoded = json.loads(body.decode(), parse_int=_integer)
    except (ValueError, RecursionError) as error:
        raise PollError("json", f"the API answered with something that is no JSON ({type(error).__name__})") from error
    if not isinstance(decoded, dict):
        raise PollError("schema", f"the API answered with a JSON {type(decoded).__name__}, not with an object")
    return decoded


def _integer(digits: str) -> float:
    """Read an integer; one of thousands of digits is infinite, and so costs its record alone."""
    return int(digits) if len(digits) < 20 else float(digits)


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
        except (msgspec.ValidationError, UnicodeEncodeError) as error:
            half = isinstance(error, UnicodeEncodeError)  # half a character, in a time or in a name: nobody says which
            fields = result if isinstance(result, dict) else {}
            unread = [name for name in shape.times if name in fields and (half or f"`$.{name}`" in str(error))]
            rejected["bad_time" if unread else _reason(str(error), shape)] += 1
            if not unread:
                return None
            result = {key: value for key, value in fields.items() if key not in unread}


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
    named = {id_name, "agentId"}
    field = next((name for name in (*named, "roundId") if f"`$.{name}`" in message or f"field `{name}`" in message), "")
    if "missing required field" in message or (field and ("got `null`" in message or "length >= 1" in message)):
        return "missing_id" if field == id_name else "missing_field"
    if field == "roundId":
        return "bad_time"
    if "Number out of range" in message:
        return "non_finite"
    if "length <=" in message:
        return "bad_label"
    return "out_of_range" if ">=" in message or "<=" in message else "bad_type"


def _address(links: object, shape: Shape[R]) -> str | None:
    try:
        address = None if links is None else shape.next_link(links)
    except (AttributeError, KeyError, TypeError) as error:
        raise PollError("schema", "the link to the next page does not have the expected form") from error
    if address is not None and not isinstance(address, str):
        raise PollError("schema", f"the link to the next page is a {type(address).__name__}, not text")
    return address or None


class _Labels(dict[str | None, str]):
    """Label values by the text that they are made of: a page names few sites and agents, and often."""

    def __missing__(self, text: str | None) -> str:
        self[text] = label(text)
        return self[text]


def users(wire: list[Any]) -> list[UserSession]:
    """Make user sessions of records with `id`, `date` and `committed` besides the fields of `WireUser`."""
    labels = _Labels()
    return [
        UserSession(
            each.id,
            Key(labels[each.agentId], labels[each.visitedSite], labels[each.protocol]),
            int(each.roundId),
            (
                ABSENT if each.experienceScore is None else each.experienceScore,
                ABSENT if each.numberOfPages is None else each.numberOfPages,
            ),
            (each.committed - each.date).total_seconds() if each.committed and each.date else ABSENT,
        )
        for each in wire
    ]


_PARTS: dict[str, type[msgspec.Struct]] = {
    "destination": Destination,
    "vpn": Leg,
    "proxy": Leg,
    "systemMetrics.cpuUtilization": Ratios,
    "systemMetrics.physicalMemoryUsedBytes": Sizes,
    "systemMetrics": SystemMetrics,
}
"""The objects of a network session that hold numbers, in the order in which `networks` reads them."""
_NESTED = ("cpuUtilization", "physicalMemoryUsedBytes")
_READ = [f"{path}.{name}" for path, part in _PARTS.items() for name in part.__struct_fields__ if name not in _NESTED]
_COLUMNS = [_READ.index(field) for field in NETWORK_FIELDS]
_DIVISORS = np.array([UNITS[field].divisor for field in NETWORK_FIELDS])


def networks(wire: list[Any]) -> list[NetworkSession]:
    """Make network sessions of records with `id` besides the fields of `WireNetwork`."""
    no_destination, no_leg, no_cpu, no_memory, no_system = Destination(), Leg(), Ratios(), Sizes(), SystemMetrics()
    numbers: list[float | None] = []
    for each in wire:
        system = each.systemMetrics or no_system
        numbers += astuple(each.destination or no_destination)
        numbers += astuple(each.vpn or no_leg)
        numbers += astuple(each.proxy or no_leg)
        numbers += astuple(system.cpuUtilization or no_cpu)
        numbers += astuple(system.physicalMemoryUsedBytes or no_memory)
        numbers += astuple(system)[: -len(_NESTED)]
    matrix = np.fromiter(numbers, np.float64, len(numbers)).reshape(-1, len(_READ))  # None becomes NaN
    packed = (matrix[:, _COLUMNS] / _DIVISORS).tobytes()
    width = len(_COLUMNS) * 8
    return [
        NetworkSession(each.id, int(each.roundId), packed[start : start + width])
        for each, start in zip(wire, range(0, len(packed), width), strict=True)
    ]


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
