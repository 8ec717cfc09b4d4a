"""Content negotiation: the exposition format and the compression that a client accepts."""

from collections.abc import Iterator

from exporter.metrics.exposition import Format


def select_format(accept: str) -> Format:
    """Return the format that an `Accept` header prefers; the text format if it accepts neither."""
    text = openmetrics = 0.0
    for media_type, parameters, quality in _preferences(accept):
        version = parameters.get("version")
        if media_type == "application/openmetrics-text" and version in (None, "1.0.0"):
            openmetrics = max(openmetrics, quality)
        elif media_type in ("text/plain", "text/*", "*/*") and version in (None, "0.0.4"):
            text = max(text, quality)
    return Format.OPENMETRICS if 0.0 < openmetrics >= text else Format.TEXT


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether an `Accept-Encoding` header accepts gzip."""
    qualities = {coding: quality for coding, _, quality in _preferences(accept_encoding)}
    return qualities.get("gzip", qualities.get("*", 0.0)) > 0.0


def _preferences(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    """Yield name, parameters and quality of each entry; an invalid quality counts as 0."""
    for entry in header.lower().split(","):
        name, *rest = (part.strip() for part in entry.split(";"))
        pairs = (part.partition("=") for part in rest)
        parameters = {key.strip(): value.strip(' "') for key, _, value in pairs}
        try:
            quality = float(parameters.get("q", "1"))
        except ValueError:
            quality = 0.0
        yield name, parameters, quality if 0.0 <= quality <= 1.0 else 0.0
