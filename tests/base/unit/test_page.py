"""Parts of a page, and markers that stand side by side instead of on each other."""

from pathlib import Path

from edgeloop.page import bundle_line, page, table
from edgeloop.plots import side_by_side


def test_markers_nearer_than_their_width_stand_side_by_side_and_others_stay():
    # the ranges are 100 and 10, so markers up to 3 and 0.4 apart are neighbours; the left one moves to the left
    points = [(1.4, 0.3), (0.0, 0.0), (5.0, 0.0), (0.0, 0.8), (100.0, 10.0)]
    assert side_by_side(points) == [0.5, -0.5, 0.0, 0.0, 0.0]


def test_three_equal_points_are_one_row():
    assert side_by_side([(5.0, 1.0), (5.0, 1.0), (5.0, 1.0), (9.0, 2.0)]) == [-1.0, 0.0, 1.0, 0.0]


def test_points_that_are_apart_in_one_direction_stay():
    assert side_by_side([(0.0, 0.0), (0.0, 1.0), (1.0, 0.0)]) == [0.0, 0.0, 0.0]


def test_a_link_to_a_bundle_is_relative_to_the_page(tmp_path):
    line = bundle_line(tmp_path / "out" / "digits", tmp_path / "reports" / "r.html")
    assert "<a href='../out/digits/manifest.json'>digits</a>. To run it in a browser: <code>edgeloop browse " in line
    assert "edgeloop browse &#x27;my bundle&#x27;</code>" in bundle_line(Path("my bundle"), tmp_path / "r.html")


def test_only_long_words_may_break_into_lines():
    assert table(["a"], [["int8"]]).count("words") == 0
    assert table(["a"], [["a reason that takes more than one line of a phone"]]).count("class=words") == 1


def test_a_page_has_a_width_for_phones_and_colors_for_dark_screens():
    made = page("t", ["<p>x</p>"])
    assert "width=device-width" in made and "prefers-color-scheme: dark" in made and str(Path.home()) not in made
