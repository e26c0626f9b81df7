import numpy as np
from PIL import Image

from cvgl_ray.reports.tables import (
    FRAME_PX,
    GAP_PX,
    GREEN,
    RED,
    WHITE,
    markdown_table,
    retrieval_sheet,
    score_line,
)


def test_table_puts_frozen_above_adapted_in_aligned_columns():
    figures = {"R@1": 8.4, "AP_standard": 12.34, "queries": 250, "queries_without_relevant": 0}
    metrics = {
        "frozen": {"drone->satellite": figures, "satellite->drone": figures},
        "adapted": {"drone->satellite": {**figures, "R@1": 100.0, "R@10": 100.0}},
        "labels_read": True,
    }
    assert markdown_table(metrics).splitlines() == [
        "| direction        | model   |   R@1 | AP standard | queries |  R@10 |",
        "| ---------------- | ------- | ----: | ----------: | ------: | ----: |",
        "| drone->satellite | frozen  |   8.4 |        12.3 |     250 |     - |",
        "| drone->satellite | adapted | 100.0 |        12.3 |     250 | 100.0 |",
        "| satellite->drone | frozen  |   8.4 |        12.3 |     250 |     - |",
    ]


def test_table_shows_a_figures_interval_behind_it():
    metrics = {"adapted": {"a->b": {"R@1": 8.4, "queries": 250, "R@1_low": 5.04, "R@1_high": 12.0}}}
    assert markdown_table(metrics).splitlines()[0::2] == [
        "| direction | model   |               R@1 | queries |",
        "| a->b      | adapted | 8.4 (5.0 to 12.0) |     250 |",
    ]


def test_figures_in_metres_stand_in_a_table_of_their_own():
    metrics = {"adapted": {"a->b": {"R@1": 50.0, "queries": 2, "median_error_m": 7.25, "L@5m": 40.0}}}
    assert markdown_table(metrics).splitlines() == [
        "| direction | model   |  R@1 | queries |",
        "| --------- | ------- | ---: | ------: |",
        "| a->b      | adapted | 50.0 |       2 |",
        "",
        "| direction | model   | median error m | L@5m |",
        "| --------- | ------- | -------------: | ---: |",
        "| a->b      | adapted |            7.2 | 40.0 |",
    ]


def test_table_shows_queries_without_relevant_when_there_are_any():
    row = {"R@1": 50.0, "queries_without_relevant": 3}
    assert "queries without relevant" in markdown_table({"adapted": {"a->b": row}})


def test_sheet_frames_what_is_known_to_be_right_or_wrong():
    blue = Image.new("RGB", (50, 50), (0, 0, 250))
    wide_grey, alpha = Image.new("L", (80, 20), 7), Image.new("RGBA", (20, 80), (9, 9, 9, 255))
    sheet = retrieval_sheet([blue, alpha], [[blue, wide_grey], [blue]], [[True, False], [False]], tile=40)
    step = 40 + GAP_PX
    assert sheet.shape == (2 * step - GAP_PX, 3 * step - GAP_PX, 3)
    assert sheet.dtype == np.uint8
    corner = lambda row, column: tuple(sheet[row * step, column * step])  # noqa: E731
    assert [corner(0, 0), corner(0, 1), corner(0, 2)] == [WHITE, GREEN, RED]
    assert [corner(1, 0), corner(1, 1), corner(1, 2)] == [WHITE, RED, WHITE]
    assert tuple(sheet[FRAME_PX, FRAME_PX]) == (0, 0, 250)
    # The wide image keeps its aspect: white above it, itself in the middle.
    assert tuple(sheet[FRAME_PX, 2 * step + 20]) == WHITE
    assert tuple(sheet[20, 2 * step + 20]) == (7, 7, 7)


def test_sheet_has_no_frames_where_nothing_is_known():
    blue = Image.new("RGB", (50, 50), (0, 0, 250))
    sheet = retrieval_sheet([blue], [[blue]], tile=40)
    assert {tuple(pixel) for pixel in sheet.reshape(-1, 3)} == {WHITE, (0, 0, 250)}


def test_a_table_says_where_the_images_tested_are_those_trained_on():
    metrics = {"adapted": {"a->b": {"R@1": 50.0}}}
    assert "trained on" not in markdown_table({**metrics, "trained_on_test_images": False})
    told = markdown_table({**metrics, "trained_on_test_images": True})
    assert told.splitlines()[-1].startswith("Tested on the images trained on: ")


def test_the_line_of_the_score_says_how_sure_it_is():
    line = score_line({"score": 0.759, "score_low": 0.7, "score_high": 0.808})
    assert line == "label-free score: 0.76 (95 % interval 0.70 to 0.81, chance 0)"
    assert "need 20 images per view" in score_line({"score": None})
