"""What all sources have in common."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from exporter.clock import ApiClock
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sources.results import Result
from exporter.thousandeyes.api import Api, Version
from exporter.thousandeyes.schema import Listing, Rejected

TIME_LIMIT_RATIO = 0.95
"""Time limit of a poll as a share of its interval."""


@dataclass(frozen=True, slots=True)
class Context:
    """What every source of every account group uses."""

    api: Api
    api_clock: ApiClock
    metrics: SelfMetrics


class Source(ABC):
    """One kind of data of one account group. A failed poll leaves its state unchanged."""

    name: ClassVar[str]
    """Value of the label `source`."""
    required: ClassVar[bool] = False
    """Whether a failed poll is an error; if not, each outage is one warning."""
    priority: ClassVar[int]
    """Position when requests have to wait for the rate limit; 0 is the first."""
    listings: ClassVar[Mapping[Version, Sequence[Listing[Any]]]]
    """What a poll reads."""
    result: Result
    """What is published; immutable."""

    def __init__(self, aid: str, context: Context, interval: float) -> None:
        """Publish nothing yet; `interval` is the number of seconds between polls."""
        self.aid = aid
        self.interval = interval
        self.metrics = context.metrics
        self._api = context.api

    def count_rejected(self, rejected: Rejected) -> None:
        """Count rejected records by reason."""
        for reason, count in rejected.items():
            self.metrics.records_rejected.labels(self.aid, self.name, reason).inc(count)

    @abstractmethod
    async def poll(self) -> Mapping[str, object]:
        """Query the API and update the state; returns fields for the log. Raises `PollError`."""

    @abstractmethod
    async def refresh(self, *, polled: bool) -> bool:
        """Expire old data and compute `result`; return whether it can have changed.

        Args:
            polled: Directly after a complete poll.
        """
