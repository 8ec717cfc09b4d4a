"""What was measured, for people: one table, the page `RESULTS.md`, the drawing `growth.svg`."""

# ruff: noqa: S603 - the programs are our own

import math
import os
import platform
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.measures import Extent, Figures, Measure
from benchmarks.processes import program

HERE = Path(__file__).parent
HEAD = ("", "measure", "ours", "reference", "against", "ratio", "target", "")
PACKAGES = ("aiohttp", "isal", "msgspec", "numpy", "prometheus-client", "pydantic")


def table(measures: Sequence[Measure]) -> str:
    """Write the measures as a table of Markdown, which can be read as it is."""
    rows = [HEAD, tuple("---" for _ in HEAD), *map(_row, measures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def _row(measure: Measure) -> tuple[str, ...]:
    unit = f" {measure.unit}" if measure.unit else ""
    return (
        measure.target,
        measure.what,
        number(measure.ours) + unit,
        number(measure.reference) + unit,
        measure.against,
        number(measure.ratio),
        f"{'≥' if measure.more else '≤'} {measure.bound:,g}",
        "ok" if measure.good else "MISSED",
    )


def number(value: float) -> str:
    """Write a number with three digits that count."""
    if value >= 1000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def page(measures: Sequence[Measure], figures: Figures, extent: Extent, command: str) -> str:
    """Write the page of results."""
    growth = "\n".join(
        f"| {sessions:,} | {found['samples']:,.0f} | {found['text'] / 1e6:.1f} MB | {found['scrape'] / 1e6:.2f} MB "
        f"| {found['seconds']:.3f} s | {found['memory'] / 1e6:.0f} MB | {found['requests']:.0f} |"
        for sessions, found in sorted(figures.growth.items())
    )
    notes = "\n".join(f"- {note}" for note in figures.notes)
    return f"""# Results

Written by `{command}` on {datetime.now(UTC):%Y-%m-%d}, and only comparable within one table: every line was measured
against its reference in the same run, in turn, and shows medians. What the lines mean stands in
[docs/performance.md](../docs/performance.md).

{table(measures)}

## Growth

| sessions a poll | samples | text | a scrape | CPU | peak memory | requests |
| --- | --- | --- | --- | --- | --- | --- |
{growth}

![Time, memory and requests of a poll against its sessions: all grow in proportion](growth.svg)

## Besides

{notes}

## Where

{_machine()}

{_versions(extent)}
"""


def _machine() -> str:
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{cpu[1] if cpu else platform.processor()}, {os.cpu_count()} cores, {memory:.0f} GiB of memory, "
        f"{platform.system()} {platform.release()}."
    )


def _versions(extent: Extent) -> str:
    python = [f"{name} {version(name)}" for name in PACKAGES]
    commands = [("go", "version"), ("nginx", "-v"), ("wrk", "-v")] + [("prometheus", "--version")] * extent.thorough
    others = [_first_version(*command) for command in commands]
    return f"Python {platform.python_version()}, {', '.join(python + others)}."


def _first_version(name: str, flag: str) -> str:
    said = subprocess.run([program(name), flag], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+(\.\d+)*", said.stdout + said.stderr)
    return f"{name} {found[0] if found else 'of an unknown version'}"


WIDTH, HEIGHT, MARGIN = 300, 260, 44


def drawing(growth: Mapping[int, Mapping[str, float]]) -> str:
    """Draw time, memory and requests against sessions on logarithmic scales; dashed is growth in proportion."""
    panels = [
        _panel(index, title, unit, {sessions: found[key] / divisor for sessions, found in sorted(growth.items())})
        for index, (title, key, unit, divisor) in enumerate(
            (
                ("CPU of a poll", "seconds", "s", 1.0),
                ("Peak memory", "memory", "MB", 1e6),
                ("Requests", "requests", "", 1.0),
            )
        )
    ]
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {3 * WIDTH} {HEIGHT}" role="img"
 aria-label="Growth of a poll with its sessions" font-family="system-ui, sans-serif" font-size="12">
<style>
svg {{ color: #1f2328 }} .ours {{ stroke: #0969da; fill: #0969da }} .faint {{ stroke: #818b98 }}
@media (prefers-color-scheme: dark) {{
svg {{ color: #e6edf3; background: #0d1117 }} .ours {{ stroke: #58a6ff; fill: #58a6ff }} .faint {{ stroke: #6e7681 }} }}
text {{ fill: currentColor; stroke: none }}
</style>
{"".join(panels)}</svg>
"""


def _panel(index: int, title: str, unit: str, points: Mapping[int, float]) -> str:
    """Draw one quantity; the dashed line is what it would be if it grew in proportion to the sessions."""
    low, high = _decades([*points.values(), *_proportional(points).values()])
    left, right = _decades(points)

    def place(sessions: float, value: float) -> tuple[float, float]:
        x = index * WIDTH + MARGIN + (math.log10(sessions) - left) / (right - left) * (WIDTH - 2 * MARGIN)
        y = HEIGHT - MARGIN - (math.log10(value) - low) / (high - low) * (HEIGHT - 2 * MARGIN)
        return round(x, 1), round(y, 1)

    def line(values: Mapping[int, float], style: str) -> str:
        along = " ".join(f"{x},{y}" for x, y in (place(*point) for point in values.items()))
        return f'<polyline points="{along}" fill="none" style="fill:none" {style}/>\n'

    head = f"{title}, {unit}" if unit else title
    parts = [f'<text x="{index * WIDTH + MARGIN}" y="20" font-weight="600">{head}</text>\n']
    for decade in range(low, high + 1):
        (x, y), (end, _) = place(10**left, 10**decade), place(10**right, 10**decade)
        parts.append(f'<line x1="{x}" y1="{y}" x2="{end}" y2="{y}" class="faint" stroke-width="0.5"/>\n')
        parts.append(f'<text x="{x - 6}" y="{y + 4}" text-anchor="end">{10**decade:,g}</text>\n')
    for sessions in points:
        x, y = place(sessions, 10**low)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{sessions:,}</text>\n')
    parts.append(line(_proportional(points), 'class="faint" stroke-width="1.5" stroke-dasharray="5 4"'))
    parts.append(line(points, 'class="ours" stroke-width="2"'))
    for point in points.items():
        x, y = place(*point)
        parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" class="ours"/>\n')
        anchor = "start" if point[0] == min(points) else "middle"
        parts.append(f'<text x="{x + 2}" y="{y - 9}" text-anchor="{anchor}">{number(point[1])}</text>\n')
    return "".join(parts)


def _proportional(points: Mapping[int, float]) -> dict[int, float]:
    """Return the line through the largest point."""
    most = max(points)
    return {sessions: points[most] * sessions / most for sessions in points}


def _decades(values: Iterable[float]) -> tuple[int, int]:
    logarithms = [math.log10(value) for value in values]
    low, high = math.floor(min(logarithms) + 1e-9), math.ceil(max(logarithms) - 1e-9)
    return low, max(high, low + 1)
