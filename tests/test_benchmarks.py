"""The benchmarks, small: whatever is compared publishes the same, and the page of results keeps what it promises.

How fast anything is, is not looked at here.
"""

import gzip
from pathlib import Path

import pytest

from benchmarks import data, equal, measures, naive, ours, report

TARGETS = [f"P{number}" for number in range(1, 12)]
RESULTS = Path(report.HERE / "RESULTS.md").read_text()


@pytest.fixture(scope="module")
def pages() -> data.Pages:
    return data.pages(300)


def test_the_same_seed_gives_the_same_pages() -> None:
    assert data.pages(30) == data.pages(30)
    assert data.pages(30) != data.pages(30, seed=2)


def test_pages_read_from_files_are_those_that_were_written(pages: data.Pages, tmp_path: Path) -> None:
    assert data.Pages.read(pages.write(tmp_path)) == pages


def test_a_listing_of_several_pages_leads_from_one_to_the_next() -> None:
    found = data.pages(data.PAGE + 1)
    assert [b'"next"' in page for page in found.users] == [True, False]


def test_the_naive_way_publishes_the_same_samples(pages: data.Pages) -> None:
    ours_, theirs = (equal.samples(found) for found in (ours.compressed(ours.poll(pages)), naive.poll(pages)))
    assert len(ours_) > 4000
    assert equal.differences(ours_, theirs) == []


def test_a_sample_more_or_of_another_value_is_a_difference() -> None:
    one, other = (
        equal.samples(gzip.compress(text))
        for text in (
            b'thousandeyes_endpoint_pages{agent="1",site="a"} 1\nthousandeyes_endpoint_pages{agent="2"} 1\n',
            b'thousandeyes_endpoint_pages{site="a",agent="1"} 2\nup 1\n',
        )
    )
    assert len(equal.differences(one, other)) == 2


def test_a_comparison_of_nothing_is_refused() -> None:
    nothing = gzip.compress(b"")
    with pytest.raises(measures.UnequalError, match="none"):
        measures.expect_equal("nothing", equal.samples(nothing), nothing)


def test_a_measure_is_good_where_its_ratio_reaches_the_target() -> None:
    cheaper = measures.Measure("P4", "what", 1.0, 20.0, "s", "others", 20.0, more=True, faster=True)
    larger = measures.Measure("P8", "what", 26.0, 10.0, "MB", "others", 2.5, more=False)
    assert (cheaper.ratio, cheaper.good, larger.ratio, larger.good) == (20.0, True, 2.6, False)
    assert "MISSED" in report.table([cheaper, larger])


def test_the_page_of_results_names_every_target() -> None:
    assert [target for target in TARGETS if f"| {target} " not in RESULTS] == []


def test_the_page_of_results_says_where_it_was_measured() -> None:
    words = ("Python ", " cores", "Linux ", "go ", "nginx ", *report.PACKAGES)
    assert [word for word in words if word not in RESULTS] == []


def test_the_drawing_is_drawn_for_light_and_dark() -> None:
    points = {
        size: {"seconds": size / 5e4, "memory": 5e7 + size * 4e3, "requests": size / 500} for size in (1000, 9999)
    }
    drawn = report.drawing(points)
    assert drawn.count("<circle") == 6
    assert "prefers-color-scheme: dark" in drawn
