"""The run's folder: one run at a time."""

import subprocess
import sys

import pytest

from cvgl_ray.errors import InputError
from cvgl_ray.storage import run_folder

HOLDER = """
import sys
from pathlib import Path
from cvgl_ray.storage.run_folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_that_another_process_holds_is_refused_until_it_ends(tmp_path):
    output = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(output)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with (
                pytest.raises(InputError, match=r"another run is writing to .*run; wait for it"),
                run_folder.locked(output),
            ):
                pass
        finally:
            holder.kill()
    with run_folder.locked(output):  # a run that was killed leaves no lock behind
        pass


def test_a_lock_ends_with_its_block_even_on_failure(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), run_folder.locked(tmp_path / "a" / "b"):
            raise KeyError


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with (
            pytest.raises(InputError, match=r"cannot be written .*; choose another"),
            run_folder.locked(output),
        ):
            pass
