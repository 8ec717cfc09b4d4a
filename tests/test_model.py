"""Label values: printable, bounded, and different where the API's are."""

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from making import anything

from exporter.model import MAX_LABEL, label

LONGEST = MAX_LABEL + len("…01234567")


def plain(text: str) -> bool:
    return text.isprintable() and text == unicodedata.normalize("NFC", text)


@given(anything)
@example("\ud800")
@example("a\u0301" * 300)
@example("\U0001d160" * 200)  # grows when it is brought to the normal form
def test_every_label_is_short_printable_and_can_be_encoded(text):
    cleaned = label(text)
    assert len(cleaned) <= LONGEST
    assert cleaned.replace("\n", "").isprintable()
    assert cleaned.encode().decode() == cleaned
    assert cleaned == cleaned.strip(" ")
    assert unicodedata.is_normalized("NFC", cleaned)


@given(anything)
def test_a_label_that_is_not_cut_is_its_own_label(text):
    once = label(text)
    if len(once) <= MAX_LABEL:
        assert label(once) == once


@given(st.text(max_size=MAX_LABEL).filter(plain))
def test_printable_text_stays_as_it_is_but_for_spaces_at_the_ends(text):
    assert label(text) == text.strip(" ")


@given(st.text("ab", min_size=2, max_size=30), st.text("ab", min_size=2, max_size=30))
def test_long_values_that_differ_only_behind_the_cut_stay_distinct(one, other):
    head = "x" * MAX_LABEL
    assert (label(head + one) == label(head + other)) == (one == other)


def test_what_is_cut_keeps_its_head_and_says_so():
    cut = label("é" * 100_000)
    assert cut[: MAX_LABEL + 1] == "é" * MAX_LABEL + "…"
    assert len(cut) == LONGEST
    assert int(cut[MAX_LABEL + 1 :], 16) >= 0


def test_a_value_that_just_fits_is_not_cut():
    assert label("x" * MAX_LABEL) == "x" * MAX_LABEL
    assert label("x" * MAX_LABEL + " ") == "x" * MAX_LABEL
    assert label("x" * MAX_LABEL + "x").startswith("x" * MAX_LABEL + "…")


@pytest.mark.parametrize("length", [10, 1000])
def test_values_that_differ_only_in_spaces_at_the_ends_or_in_normal_form_are_one(length):
    assert label("  " + "e\u0301" * length + "\t ") == label("é" * length)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ""),
        ("", ""),
        (" \u00a0\u2003\t", ""),
        ('a"b\\c', 'a"b\\c'),
        ("two\nlines", "two\nlines"),
        ("two\r\nlines", "two \nlines"),
        (" \nline\n ", "\nline\n"),
        ("a\u2028b\u00a0c\td", "a b c d"),
        ("nul\0 esc\x1b[31m", "nul\ufffd esc\ufffd[31m"),
        ("\u202egnp.exe \u200bx", "\ufffdgnp.exe \ufffdx"),
        ("\ud83d alone", "\ufffd alone"),
        ("Zürich 東京 😀", "Zürich 東京 😀"),
    ],
)
def test_what_can_not_be_printed_is_replaced(text, expected):
    assert label(text) == expected
