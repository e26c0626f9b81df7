"""The commands that commands print as "next" work as they are printed, one after the other."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)


def run(line: str, folder: Path) -> list[str]:
    """Run a line as it was printed, with this package; returns the lines that it prints."""
    program, *words = shlex.split(line)
    assert program == "cvgl-ray"
    command = [sys.executable, "-m", "cvgl_ray", *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def following(lines: list[str]) -> str:
    return next(line for line in lines if line.startswith("next:")).removeprefix("next:").strip()


def test_a_rendered_world_is_learned_and_localised_in_as_printed(tmp_path: Path) -> None:
    world = "cvgl-ray synth --output world --places 12 --test-places 6 --views 2 --image-size 64"
    train = following(run(world, tmp_path))
    # What trains also extracts: the extraction alone prints the training's own line.
    assert following(run(train.replace(" train ", " extract ", 1), tmp_path)) == train
    printed = run(train, tmp_path)
    assert any("| adapted " in line for line in printed)
    localize = following(printed)
    assert len(run(localize, tmp_path)) == 1 + 5
    found = json.loads("\n".join(run(f"{localize} --json --top 2", tmp_path)))
    assert [len(query["references"]) for query in found] == [2]
