"""Decoding of a page of JSON: records as the API sends them, their numbers in base units.

A page is decoded at once; if one of its records is invalid, each record is decoded by itself, and
an invalid one is rejected and counted. An invalid envelope fails the poll. Numeric fields, their
units and their valid ranges come from the tables of families.
"""

import math
import operator
import re
import struct
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache, reduce
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec
import numpy as np
from msgspec import Meta, Raw, Struct

from exporter.account_group import AccountGroup
from exporter.errors import PollError, RejectionReason
from exporter.labels import sanitize
from exporter.metrics.families import BOOLEAN, Unit

R = TypeVar("R")
Rejected = Counter[RejectionReason]
Search = Mapping[str, Sequence[str]]
"""Search filters of the API: lists of accepted values by key."""
Parameters = tuple[Mapping[str, str], Mapping[str, Any] | None]
"""Query, and body as JSON, of a request."""
Id = Annotated[str, Meta(min_length=1, max_length=256)]
Round = Annotated[float, Meta(gt=0, le=2**53, multiple_of=1)]

MAX_RECORDS = 100_000
"""Maximum number of records of a page; the API sends 1,000."""
MAX_INVALID_RECORDS = 1000
"""A page that begins with so many invalid records has an unexpected schema."""


class Record(Struct, Generic[R], gc=False, rename="camel"):
    """A record without its numeric fields. Fields without a default are required."""

    numbers: ClassVar[Mapping[str, Unit]] = {}
    """Units of the numeric fields, by path."""

    @abstractmethod
    def convert(self, values: bytes, rejected: Rejected) -> R:
        """Convert to the model.

        Args:
            values: The numeric fields in base units, packed; NaN for null and missing.
            rejected: Counts the optional fields that are ignored because they are invalid.
        """


def parse_time(text: Any, rejected: Rejected) -> datetime | None:
    """Parse an ISO 8601 time, UTC by default; `None` for null, and counted if it is invalid."""
    if text is None:
        return None
    try:
        return _parse_time(text)
    except (TypeError, ValueError):
        rejected["bad_time"] += 1
        return None


@lru_cache(maxsize=2**12)  # times have a resolution of a second, so many records share them
def _parse_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
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
    priority: int = 0
    """Position of the source when requests have to wait for the rate limit; 0 is the first."""


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
        self.path = path
        self.cursor_parameters = envelope.cursor_parameters
        complete = _add_numbers(record, record.numbers)
        self.decode_page = _page_decoder(envelope, results, complete)
        self.decode_raw_page = _page_decoder(envelope, results, Raw)
        self.decode_record: Callable[[Raw], Any] = msgspec.json.Decoder(complete).decode
        self._paths = tuple(record.numbers)
        self._divisors = np.array([unit.divisor for unit in record.numbers.values()])
        if self._paths:
            self._numbers: Callable[[Any], tuple[float, ...]] = operator.attrgetter(*self._paths)
            self._pack = struct.Struct(f"{len(self._paths)}d").pack

    def convert(self, records: Sequence[Any], rejected: Rejected) -> list[R]:
        """Convert records to the model."""
        if not self._paths:
            return [record.convert(b"", rejected) for record in records]
        packed = b"".join([self._packed(record) for record in records])
        values = (np.frombuffer(packed).reshape(-1, len(self._paths)) / self._divisors).tobytes()
        width = 8 * len(self._paths)
        starts = range(0, len(values), width)
        return [
            record.convert(values[start : start + width], rejected)
            for record, start in zip(records, starts, strict=True)
        ]

    def _packed(self, record: Any) -> bytes:
        """Return the numeric fields as the API sent them, as packed native doubles."""
        try:
            return self._pack(*self._numbers(record))
        except (AttributeError, struct.error):  # null, for a number or for a nested record
            return self._pack(*[_number(record, path) for path in self._paths])


def _number(record: Any, path: str) -> float:
    value = reduce(lambda part, name: getattr(part, name, None), path.split("."), record)
    return math.nan if value is None else value


def _page_decoder(envelope: type[Envelope], results: str, record: Any) -> Callable[[str], Any]:
    definition = [("results", list[record], msgspec.field(name=results))]
    page = msgspec.defstruct("Page", definition, bases=(envelope,), kw_only=True)
    return msgspec.json.Decoder(page).decode


def _add_numbers(
    base: type[Struct], units: Mapping[str, Unit], *, frozen: bool = False
) -> type[Struct]:
    """Extend a struct by optional numbers; dots in the path of a number make nested structs."""
    nested: dict[str, dict[str, Unit]] = {}
    definition: list[tuple[str, Any, Any]] = []
    for path, unit in units.items():
        name, _, rest = path.partition(".")
        if rest:
            nested.setdefault(name, {})[rest] = unit
        else:
            number: Any = Annotated[float, Meta(ge=unit.low, le=unit.high)]
            definition.append((name, (bool if unit is BOOLEAN else number) | None, math.nan))
    for name, inner_units in nested.items():
        inner = _add_numbers(Struct, inner_units, frozen=True)
        definition.append((name, inner | None, inner()))
    return msgspec.defstruct(base.__name__, definition, bases=(base,), gc=False, frozen=frozen)


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
    rejected: Rejected = Counter()
    try:
        text = body.decode("utf-8-sig")
        try:
            page = listing.decode_page(text)
            records = page.results
        except msgspec.ValidationError:
            page = listing.decode_raw_page(text)
            records = _decode_records(page.results, listing, rejected)
        if len(page.results) > MAX_RECORDS:
            raise PollError("schema", f"the page has more than {MAX_RECORDS:,} records")
    except msgspec.ValidationError as error:
        _, _, path = str(error).rpartition(" - at ")  # the message may quote the response
        raise PollError("schema", f"unexpected response at {path or 'its top level'}") from None
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        raise PollError("json", "the response is not valid JSON") from None
    return Page(listing.convert(records, rejected), page.next_link or None, rejected)


def _decode_records(raw: Sequence[Raw], listing: Listing[Any], rejected: Rejected) -> list[Any]:
    """Decode each record by itself and count the invalid ones."""
    records = []
    for record in raw[: MAX_RECORDS + 1]:
        try:
            records.append(listing.decode_record(record))
        except msgspec.ValidationError as error:
            rejected[_rejection_reason(str(error))] += 1
            if not records and rejected.total() == MAX_INVALID_RECORDS:
                message = f"the page begins with invalid records only: {describe(rejected)}"
                raise PollError("schema", message) from None
    return records


def describe(rejected: Rejected) -> str:
    """Return the reasons and their numbers of records as text."""
    return ", ".join(f"{reason} {count:,}" for reason, count in rejected.items())


def _rejection_reason(message: str) -> RejectionReason:
    """Derive the reason from msgspec's message. Only required fields do not accept null."""
    if re.search("missing required|got `null` - at|length >= 1 ", message):
        return "missing_field"
    if "`$.roundId`" in message:
        return "bad_time"
    return "out_of_range" if re.search("out of range|[<>]= ", message) else "bad_type"


class AccountGroupRecord(Record[AccountGroup]):
    """An account group; v6 sends integers as id and as boolean."""

    aid: Id | int
    account_group_name: str | None = None
    is_current_account_group: bool | int | None = None

    def convert(self, values: bytes, rejected: Rejected) -> AccountGroup:
        """See `Record.convert`."""
        name, current = sanitize(self.account_group_name), bool(self.is_current_account_group)
        return AccountGroup(sanitize(str(self.aid)), name, current)
