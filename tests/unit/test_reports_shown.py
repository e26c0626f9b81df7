"""No chart and no picture ends a run: what cannot be drawn is said in a line of the log."""

import logging

import numpy as np
import pytest

from cvgl_ray.reports.shown import shown
from cvgl_ray.reports.tensorboard import _histogram


@pytest.mark.parametrize(
    "values",
    [
        np.full(9, 0.7, np.float32),
        np.array([1.0, np.nextafter(np.float32(1), np.float32(2))], np.float32),
        np.array([np.nan, 1.0, np.inf, 2.0]),
        np.full(3, 65504, np.float16),
        np.zeros(0),
    ],
    ids=["equal", "equal but for a bit", "not finite", "large", "none"],
)
def test_a_histogram_of_any_scores_can_be_drawn(values):
    made = _histogram(values)
    finite = values[np.isfinite(values)]
    assert sum(made["bucket_counts"]) == made["num"] == len(finite)
    assert np.diff(made["bucket_limits"]).min() > 0
    assert made["sum"] == pytest.approx(finite.astype(float).sum())


def test_a_chart_that_fails_is_a_line_of_the_log(caplog):
    with caplog.at_level(logging.WARNING), shown("the charts"):
        raise MemoryError("no room\nfor it")
    assert caplog.messages == ["the charts could not be made (MemoryError: no room); the run goes on"]


def test_an_interrupt_passes():
    with pytest.raises(KeyboardInterrupt), shown("the charts"):
        raise KeyboardInterrupt
