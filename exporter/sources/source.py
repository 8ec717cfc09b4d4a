"""What all sources have in common."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from exporter.clock import ApiClock
from exporter.metrics.self_metrics import SelfMetrics
from exporter.sources.results import Result
from exporter.thousandeyes.api import Api

TIME_LIMIT_RATIO = 0.95
"""Time limit of a poll as a share of its interval."""


@dataclass(frozen=True, slots=True)
class Context:
    """What every source of every account group uses."""

    api: Api
    api_clock: ApiClock
    metrics: SelfMetrics


class Source(Protocol):
    """One kind of data of one account group. A failed poll leaves its state unchanged."""

    @property
    def name(self) -> str:
        """Value of the label `source`."""

    @property
    def interval(self) -> float:
        """Seconds between polls."""

    @property
    def required(self) -> bool:
        """Whether a failed poll is an error; if not, each outage is one warning."""

    @property
    def priority(self) -> int:
        """Position when requests have to wait for the rate limit; 0 is the first."""

    @property
    def result(self) -> Result:
        """What is published; immutable."""

    async def poll(self) -> Mapping[str, object]:
        """Query the API and update the state; returns fields for the log. Raises `PollError`."""

    async def refresh(self, *, polled: bool) -> bool:
        """Expire old data and compute `result`; return whether it can have changed.

        Args:
            polled: Directly after a complete poll.
        """
