"""Label values: printable and bounded."""

import hashlib
import unicodedata

from factories import any_text
from hypothesis import example, given

from exporter.labels import MAX_LENGTH, sanitize


@given(any_text)
@example("\ud800")
@example("a\u0301" * 300)
@example("\U0001d160" * 200)  # longer in normal form
def test_every_label_value_is_short_printable_and_encodable(text):
    label = sanitize(text)
    assert len(label) <= MAX_LENGTH + len("…01234567")
    assert label.replace("\n", "").isprintable()
    assert label.encode().decode() == label == label.strip(" ")
    assert unicodedata.is_normalized("NFC", label)
    if len(label) <= MAX_LENGTH:
        assert sanitize(label) == label
    if text.isprintable() and unicodedata.is_normalized("NFC", text) and len(text) <= MAX_LENGTH:
        assert label == text.strip(" ")


def test_values_are_sanitized():
    digest = hashlib.sha256(("é" + "x" * 256).encode()).hexdigest()[:8]
    labels = {
        None: "",
        " \u00a0\u2003\t": "",
        "XX padded XX ": "XX padded XX",
        " \nline\n ": "\nline\n",
        "a\u2028b\u00a0c\td": "a b c d",
        "nul\0 esc\x1b[31m": "nul\ufffd esc\ufffd[31m",
        "\u202egnp.exe \u200bx": "\ufffdgnp.exe \ufffdx",
        "x" * 256 + " ": "x" * 256,
        " e\u0301" + "x" * 256: "é" + "x" * 255 + "…" + digest,
    }
    assert {text: sanitize(text) for text in labels} == labels


def test_long_values_with_a_common_prefix_stay_distinct():
    assert len({sanitize("\u0344" * size) for size in (500, 1000, 1100, 8_000_000)}) == 4
