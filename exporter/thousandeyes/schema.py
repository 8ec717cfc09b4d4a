"""Records as the API sends them, and decoding of a page of JSON to the model.

Each record is decoded by itself: an invalid record is rejected and counted, an invalid envelope
fails the poll. Field names are those of API v7; `v6.py` renames what was different. Numeric fields,
their units and their valid ranges come from the metric table.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct
from msgspec.structs import astuple
from numpy.typing import NDArray

from exporter.errors import PollError, RejectionReason
from exporter.inventory import AccountGroup, Agent
from exporter.labels import sanitize
from exporter.metrics.families import NETWORK_FIELDS, UNITS, USER_FIELDS
from exporter.sessions.model import NetworkSession, SeriesKey, UserSession

R = TypeVar("R")
Rejected = Counter[RejectionReason]
Search = Mapping[str, Sequence[str]]
"""Search filters of the API: lists of accepted values by key."""
Parameters = tuple[Mapping[str, str], Mapping[str, Any] | None]
"""Query, and body as JSON, of a request."""
Structs = dict[str, type[Struct]]
"""A struct and its nested structs, parents first, by the prefix of their fields, such as `vpn.`."""
Values = NDArray[np.float64]
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Round = Annotated[float, Meta(gt=0, le=2**53, multiple_of=1)]


class Record(Struct, Generic[R], gc=False, rename="camel"):
    """A record without its numeric fields. Fields without a default are required."""

    fields: ClassVar[Sequence[str]] = ()
    """Paths of the numeric fields; keys of `exporter.metrics.families.UNITS`."""

    def convert(self, values: Values, rejected: Rejected) -> R:
        """Convert to the model.

        Args:
            values: The numeric fields in base units; NaN for null and missing.
            rejected: Counts the optional fields that are ignored because they are invalid.
        """
        raise NotImplementedError


class UserRecord(Record[UserSession]):
    """A user session (v7: real user test)."""

    fields = USER_FIELDS
    id: Id
    agent_id: Id
    round_id: Round
    visited_site: str | None = None
    protocol: str | None = None
    date: Any = None
    committed: Any = None

    def convert(self, values: Values, rejected: Rejected) -> UserSession:
        """See `Record.convert`."""
        key = _series_key(self.agent_id, self.visited_site, self.protocol)
        date, committed = _time(self.date, rejected), _time(self.committed, rejected)
        delay = (committed - date).total_seconds() if date and committed else math.nan
        return UserSession(self.id, key, int(self.round_id), tuple(values.tolist()), delay)


@lru_cache(maxsize=2**16)  # the same keys come in every round
def _series_key(agent: str, site: str | None, protocol: str | None) -> SeriesKey:
    return SeriesKey(sanitize(agent), sanitize(site), sanitize(protocol))


class NetworkRecord(Record[NetworkSession]):
    """A network session (v7: network result of a real user test)."""

    fields = NETWORK_FIELDS
    id: Id
    round_id: Round

    def convert(self, values: Values, rejected: Rejected) -> NetworkSession:
        """See `Record.convert`."""
        return NetworkSession(self.id, int(self.round_id), values.tobytes())


class Location(Struct, gc=False, rename="camel"):
    """Location of an agent; only the name is used."""

    location_name: str | None = None


class AgentRecord(Record[Agent]):
    """An endpoint agent."""

    id: Id
    name: str | None = None
    platform: str | None = None
    version: str | None = None
    os_version: str | None = None
    location: Location | None = None
    last_seen: Any = None

    def convert(self, values: Values, rejected: Rejected) -> Agent:
        """See `Record.convert`."""
        time = _time(self.last_seen, rejected)
        return Agent(
            id=sanitize(self.id),
            name=sanitize(self.name),
            platform=sanitize(self.platform),
            version=sanitize(self.version),
            os_version=sanitize(self.os_version),
            location=sanitize(self.location.location_name if self.location else None),
            last_seen=time.timestamp() if time else math.nan,
        )


class AccountGroupRecord(Record[AccountGroup]):
    """An account group; v6 sends integers as id and as boolean."""

    aid: Id | int
    account_group_name: str | None = None
    is_current_account_group: bool | int | None = None

    def convert(self, values: Values, rejected: Rejected) -> AccountGroup:
        """See `Record.convert`."""
        name, current = sanitize(self.account_group_name), bool(self.is_current_account_group)
        return AccountGroup(sanitize(str(self.aid)), name, current)


def _time(text: Any, rejected: Rejected) -> datetime | None:
    """Parse an ISO 8601 time, UTC by default; `None` for null, and counted if it is invalid."""
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        rejected["bad_time"] += 1
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Request:
    """An API request, without host and credentials; POST if it has a body."""

    path: str
    aid: str = ""
    """Account group; empty for the token's own."""
    query: Mapping[str, str] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    """JSON; the same for every page."""


class Envelope(Struct):
    """What surrounds the records of a page; each API version has its own."""

    cursor_parameters: ClassVar[frozenset[str]] = frozenset()
    """Query parameters of the next link that select the page."""

    @property
    def next_link(self) -> str | None:
        """URL of the next page as sent by the API, unchecked; `None` or empty on the last page."""
        return None


class Listing(Generic[R]):
    """A listing of one API version, and how its pages are decoded."""

    def __init__(
        self, path: str, envelope: type[Envelope], results: str, record: type[Record[R]]
    ) -> None:
        """Create the decoders.

        Args:
            path: Path of the URL, without ids; also the `route` label of the own metrics.
            envelope: What surrounds the records.
            results: Key of the list of records in the envelope.
            record: The records, without their numeric fields.
        """
        self.path, self.results, self.fields = path, results, record.fields
        self.cursor_parameters = envelope.cursor_parameters
        self.structs = _add_numbers(record, record.fields)
        definition = [("results", list[Raw], msgspec.field(name=results))]
        page = msgspec.defstruct("Page", definition, bases=(envelope,), kw_only=True)
        self.decode_page: Callable[[str], Any] = msgspec.json.Decoder(page).decode
        self.decode_record: Callable[[Raw], Any] = msgspec.json.Decoder(self.structs[""]).decode


@dataclass(frozen=True, slots=True)
class Page(Generic[R]):
    """One page of a listing."""

    records: list[R]
    next_link: str | None
    """URL of the next page as sent by the API, unchecked; `None` on the last page."""
    rejected: Rejected


def decode(body: bytes, listing: Listing[R]) -> Page[R]:
    """Decode one page.

    Raises:
        PollError: `json` if the body is not valid JSON, `schema` if the envelope is unexpected.
    """
    try:
        page = listing.decode_page(body.decode("utf-8-sig"))
    except msgspec.ValidationError as error:
        raise PollError("schema", f"unexpected response: {error}") from error
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError) as error:
        raise PollError("json", f"the response is not valid JSON: {error}") from error
    rejected: Rejected = Counter()
    records = []
    for raw in page.results:
        try:
            records.append(listing.decode_record(raw))
        except msgspec.ValidationError as error:
            rejected[_rejection_reason(str(error))] += 1
    rows = zip(records, _values(records, listing), strict=True)
    converted = [record.convert(values, rejected) for record, values in rows]
    return Page(converted, page.next_link or None, rejected)


def _rejection_reason(message: str) -> RejectionReason:
    """Derive the reason from msgspec's message. Only required fields do not accept null."""
    if re.search("missing required|got `null` - at|length >= 1 ", message):
        return "missing_field"
    if "`$.roundId`" in message:
        return "bad_time"
    return "out_of_range" if re.search("out of range|[<>]= ", message) else "bad_type"


def _add_numbers(base: type[Struct], fields: Sequence[str], prefix: str = "") -> Structs:
    """Extend a struct by an optional number for each field; dots in a path make nested structs."""
    tree: dict[str, list[str]] = {}
    for path in fields:
        name, _, rest = path.partition(".")
        tree.setdefault(name, []).append(rest)
    definition: list[tuple[str, Any, Any]] = []
    nested: Structs = {}
    for name, rests in tree.items():
        path = prefix + name
        if rests == [""]:
            limits = Meta(ge=UNITS[path].low, le=UNITS[path].high)
            definition.append((name, Annotated[float, limits] | None, math.nan))
        else:
            nested |= _add_numbers(Struct, rests, f"{path}.")
            definition.append((name, nested[f"{path}."] | None, None))
    struct = msgspec.defstruct(base.__name__, definition, bases=(base,), gc=False)
    return {prefix: struct, **nested}


def _values(records: Sequence[Any], listing: Listing[Any]) -> Values:
    """Return the numeric fields in base units, one row per record; NaN for null and missing."""
    index = {path: number for number, path in enumerate(listing.fields)}
    values = np.full((len(records), len(index)), math.nan)
    columns: dict[str, Sequence[Any]] = {"": records}
    for prefix, struct in listing.structs.items():
        structs = columns.get(prefix, ())
        if not any(structs):
            continue
        missing: Any = struct() if prefix else None
        fields = zip(*[astuple(each or missing) for each in structs], strict=True)
        for name, column in zip(struct.__struct_fields__, fields, strict=True):
            columns[f"{prefix}{name}."] = column
            if (number := index.get(prefix + name)) is not None:
                values[:, number] = column
    return values / [UNITS[path].divisor for path in listing.fields]
