"""Who has its turn: how long the event loop waits for it, and that it is not interrupted where that costs the most."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from exporter import turns
from exporter.exposition import Format
from exporter.telemetry import Telemetry
from exporter.turns import UNDISTURBED, undisturbed

ANSWERING = """
import gc, sys
from exporter.turns import RARELY, SWITCH, answer_first
answer_first()
assert abs(sys.getswitchinterval() - SWITCH) < 1e-6
assert gc.get_freeze_count() > 1000
assert gc.get_threshold() == RARELY
"""


def test_what_is_loaded_is_not_searched_and_threads_switch_early() -> None:
    subprocess.run([sys.executable, "-c", ANSWERING], check=True)


def test_the_turn_is_kept_and_given_back_even_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "UNDISTURBED", 0.03)
    before = sys.getswitchinterval()
    with suppress(ZeroDivisionError), undisturbed():
        during = sys.getswitchinterval()
        _ = 1 / 0
    assert during == pytest.approx(0.03)
    assert sys.getswitchinterval() == pytest.approx(before) != pytest.approx(during)


def test_own_metrics_are_written_in_one_go() -> None:
    class Interval(Collector):
        def collect(self) -> Iterator[GaugeMetricFamily]:
            yield GaugeMetricFamily("interval", "Seconds.", sys.getswitchinterval())

    telemetry = Telemetry(process=False)
    telemetry.registry.register(Interval())
    for format_ in Format:
        assert f"\ninterval {UNDISTURBED}\n" in telemetry.render(format_)
