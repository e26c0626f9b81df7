"""What the driver of a training holds, at a number of rows and at ten times as many.

    python experiments/benchmarks/driver_memory.py [--rows 10000] [--dims 512] [--set KEY=VALUE]…

Writes a table of random features of either size, trains on it by `cvgl-ray train` for one round on 1,000
rows, without the judge, and prints the peak of the driver's process beside what the rows take.
"""

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

BLOCK = 10_000  # rows
ONE_ROUND = ("mstep.rounds=1", "run.agreement=false", "estep.neighbourhood=0", "estep.rows=1000")


def write_table(path: Path, rows: int, dims: int) -> None:
    """Two views of so many random rows, halves of whose numbers are shared, a block at a time."""
    lists = pa.list_(pa.float16(), dims)
    schema = pa.schema([("image_id", pa.string()), ("view", pa.string()), ("feature", lists)])
    with pq.ParquetWriter(path, schema) as writer:
        for view, seed in (("drone", 1), ("satellite", 2)):
            for start in range(0, rows, BLOCK):
                names = [f"{view}/{row:08d}.jpg" for row in range(start, min(start + BLOCK, rows))]
                shared = np.random.default_rng((0, start)).random((len(names), dims), np.float32)
                own = np.random.default_rng((seed, start)).random((len(names), dims), np.float32)
                features = pa.array((shared + own).astype(np.float16).reshape(-1))
                block = [names, [view] * len(names), pa.FixedSizeListArray.from_arrays(features, dims)]
                writer.write_table(pa.table(block, schema=schema))


def peak_of(command: list[str]) -> int:
    """The highest resident memory of a command's own process, in bytes."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        peak, ended = [0], threading.Event()

        def watch() -> None:
            while not ended.wait(0.2):
                try:
                    status = Path(f"/proc/{process.pid}/status").read_text()
                except OSError:
                    return
                lines = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
                peak[0] = max([peak[0], *(int(line) * 1024 for line in lines)])

        watcher = threading.Thread(target=watch)
        watcher.start()
        _, told = process.communicate()
        ended.set()
        watcher.join()
    if process.returncode:
        raise click.ClickException(told.strip().splitlines()[-1])
    return peak[0]


@click.command()
@click.option("--rows", default=10_000, show_default=True, help="of each view, at first")
@click.option("--dims", default=512, show_default=True)
@click.option("--set", "overrides", multiple=True)
def main(rows: int, dims: int, overrides: tuple[str, ...]) -> None:
    """Print a line per size."""
    for count in (rows, 10 * rows):
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "table.parquet"
            write_table(table, count, dims)
            settings = (f"features.table={table}", *ONE_ROUND, *overrides)
            flags = [part for setting in settings for part in ("--set", setting)]
            command = [sys.executable, "-m", "cvgl_ray", "train", "--output", f"{folder}/run", *flags]
            peak = peak_of(command)
        print(
            f"{count} rows a view of {dims}: the driver's peak {peak / 2**20:.0f} MiB; "
            f"rows {4 * count * dims / 2**20:.0f} MiB"
        )


if __name__ == "__main__":
    main()
