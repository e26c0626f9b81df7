"""Progress in a log and in a real terminal."""

import logging
import os
import pty
import subprocess
import sys
import termios

import pytest

from cvgl_ray import progress as module
from cvgl_ray.progress import progress

WORK = """
import logging, sys
logging.basicConfig(format="%(message)s", level=logging.INFO)
from cvgl_ray.progress import progress
with progress("hashing", 40, "images") as advance:
    for _ in range(4):
        advance(10)
"""


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(monkeypatch, caplog):
    clock = iter([0.0, 10.0, 31.0, 32.0, 3700.0, 3720.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with caplog.at_level(logging.INFO), progress("hashing", 4000, "images") as advance:
        for count in (10, 300, 0, 690):
            advance(count)
    assert caplog.messages == [
        "hashing: 310 of 4000 images, 10/s, 6:09 min left",
        "hashing: 1000 of 4000 images, 0.27/s, 3:05 h left",
        "hashing: 1000 images in 1:02 h",
    ]


def test_short_work_and_silent_logs_get_none(capsys, caplog):
    with caplog.at_level(logging.INFO), progress("hashing", 3, "images") as advance:
        advance(3)
    with caplog.at_level(logging.WARNING), progress("hashing", 3, "images") as advance:
        advance(3)
    assert (caplog.messages, capsys.readouterr().err) == ([], "")


def test_a_failure_passes_through():
    with pytest.raises(KeyError), progress("hashing", 3, "images"):
        raise KeyError


def test_a_terminal_gets_a_bar_with_rate_and_time():
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with os.fdopen(theirs, "w") as terminal:
        subprocess.run([sys.executable, "-c", WORK], stderr=terminal, check=True, timeout=60)
    text = os.read(ours, 100_000).decode()
    os.close(ours)
    assert "hashing: 100%" in text
    assert "40/40" in text
    assert "images/s" in text
