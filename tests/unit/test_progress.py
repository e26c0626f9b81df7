"""Progress in a log and in a real terminal."""

import io
import logging
import os
import pty
import subprocess
import sys
import termios

import pytest

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
    now = 0.0
    monkeypatch.setattr("tqdm.std.time", lambda: now)
    with caplog.at_level(logging.INFO), progress("hashing", 4000, "images") as advance:
        for now, count in ((10.0, 10), (31.0, 300), (32.0, 0), (3700.0, 690)):  # noqa: B007
            advance(count)
    assert caplog.messages == [
        "hashing: 310 of 4000 images, 10.00 images/s, 06:09 left",
        "hashing: 1000 of 4000 images, 0.27 images/s, 3:05:00 left",
        "hashing: 1000 images in 1:01:40",
    ]


def test_a_terminal_that_is_gone_ends_nothing(monkeypatch, caplog):
    class Gone(io.StringIO):
        def isatty(self) -> bool:
            return True

    gone = Gone()
    monkeypatch.setattr(sys, "stderr", gone)
    with caplog.at_level(logging.INFO), progress("hashing", 3, "images") as advance:
        gone.close()
        advance(3)


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
