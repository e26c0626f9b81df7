"""What a run costs before and between its rounds: imports, Ray, Ray Train's workers, a round's report.

    python experiments/benchmarks/startup.py [--quick]

Prints seconds of wall clock and, for imports, of CPU. The features are random and few, so that next to
nothing is the training's own; needs two free cores. `--quick` leaves out repetitions and the second worker.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any

import click
import numpy as np

IMPORTS = {
    "cvgl-ray --help": ["-m", "cvgl_ray", "--help"],
    "an unknown key is refused": ["-m", "cvgl_ray", "train", "--set", "run.wrong=1", "--output", "unused"],
    "import ray": ["-c", "import ray"],
    "import torch": ["-c", "import torch"],
    "import cvgl_ray.stages": ["-c", "import cvgl_ray.stages"],
    "import cvgl_ray.distributed.train": ["-c", "import cvgl_ray.distributed.train"],
}
ROWS, DIMENSION, ROUNDS = 64, 32, 12


def cost(arguments: list[str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one Python process."""
    before, began = getrusage(RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    wall, after = time.perf_counter() - began, getrusage(RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def training(workers: int) -> dict[str, float]:
    """Seconds of the parts of one training, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--workers", str(workers)], stdout=subprocess.PIPE, check=True
    )
    parts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return parts


def measure_training(workers: int) -> dict[str, float]:
    """Start Ray, train `ROUNDS` rounds on random features, stop Ray; seconds of each part."""
    from cvgl_ray.config import load_config
    from cvgl_ray.distributed import session
    from cvgl_ray.distributed.train import train
    from cvgl_ray.features.table import FeatureTable
    from cvgl_ray.storage.run_folder import RunFolder

    config = load_config(None, (f"run.workers={workers}", f"mstep.rounds={ROUNDS}"))
    rng = np.random.default_rng(0)
    names = [str(row) for row in range(ROWS)]
    query, reference = (
        FeatureTable(names, rng.standard_normal((ROWS, DIMENSION)).astype(np.float16)) for _ in range(2)
    )
    marks = [time.time()]
    session.connect()
    marks.append(time.time())
    with tempfile.TemporaryDirectory() as folder:
        train(query, reference, config, {}, RunFolder(Path(folder), folder))
        marks.append(time.time())
        reported, em = rounds_of(Path(folder) / "tensorboard")
    import ray

    ray.shutdown()
    marks.append(time.time())
    return {
        "ray.init": marks[1] - marks[0],
        "fit until the first round is reported": reported[0] - em[0] - marks[1],
        "a round, over its E- and M-step": (reported[-1] - reported[0] - sum(em[1:])) / (ROUNDS - 1),
        "fit after the last round": marks[2] - reported[-1],
        "ray.shutdown": marks[3] - marks[2],
    }


def rounds_of(folder: Path) -> tuple[list[float], list[float]]:
    """By round: when it was reported (seconds of the epoch), and the seconds of its E- and M-step."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    steps: Any = [
        events.Scalars(tag)
        for tag in events.Tags()["scalars"]
        if tag.startswith(("time/e_step", "time/m_step"))
    ]
    times = [sum(event.value for event in both) for both in zip(*steps, strict=True)]
    return [event.wall_time for event in steps[0]], times


@click.command()
@click.option("--quick", is_flag=True, help="One repetition, one worker.")
@click.option("--workers", type=int, default=None, hidden=True)
def main(quick: bool, workers: int | None) -> None:
    """Print the table."""
    if workers is not None:
        click.echo(json.dumps(measure_training(workers)))
        return
    repetitions = 1 if quick else 3
    for name, arguments in IMPORTS.items():
        wall, cpu = min(cost(arguments) for _ in range(repetitions))
        click.echo(f"{name:45} {wall:6.1f} s, CPU {cpu:5.1f} s")
    for number in (1,) if quick else (1, 2):
        runs = [training(number) for _ in range(repetitions)]
        for part in runs[0]:
            click.echo(f"{number} worker(s): {part:45} {min(run[part] for run in runs):6.2f} s")


if __name__ == "__main__":
    main()
