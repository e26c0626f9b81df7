"""Tables and figure of a sweep's trials."""

import csv
import io

from cvgl_ray.reports.sweep import (
    TrialRow,
    labels_markdown,
    score_figure,
    trials_csv,
    trials_markdown,
)

ROWS = [
    TrialRow("trial-000", {"adapter.rank": 8, "crops": [0.5, 1.0]}, 0.25, 3, "complete", False),
    TrialRow("trial-001", {"adapter.rank": 512, "crops": [1.0]}, 0.75, 3, "complete", True),
    TrialRow("trial-002", {"adapter.rank": 64, "crops": [1.0]}, 0.9, 1, "stopped", False),
    TrialRow("trial-003", {"adapter.rank": 16, "crops": [1.0]}, None, 0, "failed", False),
]


def test_the_csv_holds_every_trial_in_order():
    first, *_, last = csv.DictReader(io.StringIO(trials_csv(ROWS, "labels/mutual")))
    assert (first["trial"], first["adapter.rank"], first["crops"]) == ("trial-000", "8", "[0.5, 1.0]")
    assert (first["labels/mutual"], first["ended"], first["chosen"]) == ("0.25", "complete", "False")
    assert (last["labels/mutual"], last["rounds"], last["ended"]) == ("", "0", "failed")


def test_the_table_begins_with_complete_trials_best_first():
    lines = trials_markdown(ROWS, "labels/mutual").splitlines()
    assert len({len(line) for line in lines}) == 1
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names == ["**trial-001**", "trial-000", "trial-002", "trial-003"]
    assert "0.7500" in lines[2]


def test_the_labels_table_says_how_far_the_choice_is_from_the_best():
    figures = {
        "trial-000": {"a->b": {"R@1": 80.0, "AP": 81.0}},
        "trial-001": {"a->b": {"R@1": 60.0, "AP": 61.0}},
    }
    text = labels_markdown(ROWS, figures, "labels/mutual")
    assert "trial-002" not in text
    assert text.splitlines()[2].replace(" ", "") == "|trial-001|yes|0.7500|60.0|61.0|"
    assert "the choice has R@1 60.0, the best complete trial 80.0, the median 70.0" in text
    assert "R@1: -1.00." in text


def test_the_figure_has_a_panel_for_each_key_with_every_scored_trial_in_it():
    panels = score_figure(ROWS, "labels/mutual").axes
    shown = [panel for panel in panels if panel.axison]
    assert [panel.get_xlabel() for panel in shown] == ["adapter.rank", "crops"]
    assert shown[0].get_xscale() == "log"
    for panel in shown:
        stopped, complete, chosen = (len(points.get_offsets()) for points in panel.collections)
        assert (stopped, complete, chosen) == (1, 2, 1)
