"""Label values: sanitize what the API sends."""

import hashlib
import unicodedata
from functools import lru_cache

MAX_LENGTH = 256
"""Maximum number of characters of a label value; host names, names and ids are far shorter."""
OTHER = "__other__"
"""Value of `agent` and `site` for series folded by `metrics.max_series`."""


@lru_cache(maxsize=2**16)  # the same values come in every round, and are then stored once
def sanitize(text: str | None) -> str:
    """Return a printable label value in Unicode normal form C; empty for `None`.

    Whitespace characters become spaces, and leading and trailing spaces are removed. A line feed
    stays. Other non-printable characters (controls, bidirectional overrides, lone surrogates)
    become U+FFFD. A value longer than `MAX_LENGTH` is truncated and ends with `…` and eight
    hexadecimal digits of its SHA-256, so that two values with a common prefix stay distinct.
    """
    if text is None:
        return ""
    if len(text) > 4 * MAX_LENGTH:  # the rest would only take time
        digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
        text = text[: 3 * MAX_LENGTH] + digest
    if not (text.isascii() and text.isprintable()):
        text = unicodedata.normalize("NFC", "".join(map(_printable, text)))
    text = text.strip(" ")
    if len(text) > MAX_LENGTH:
        text = text[:MAX_LENGTH] + "…" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return text


def _printable(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    return " " if character.isspace() else "\N{REPLACEMENT CHARACTER}"
