"""What a training's alignment takes where its cells are read from disk: memory, and seconds by size.

    python experiments/benchmarks/alignment_memory.py DIR [--queries N] [--references N] [--memory-gib G]…

Cells of made-up places are stored in DIR, in the shapes of the default configuration; those that are there
are used again. Prints the store's bytes and how quickly blocks are read from it (from the disk, and once the
system holds them in memory), then per memory_gib, on a cluster of this machine, milliseconds per pair where
every pose is tried, and rounds of the aligner: seconds, the share of pairs that are right, a digest of all
scores, which do not depend on memory_gib, and the most memory of the driver and of one scoring actor, its own
and with what it shares. The vectors propose, as they do at University-1652's size, and are right for most.
"""

import os
import threading
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import click
import numpy as np
import ray
import torch
import torch.nn.functional as F

from cvgl_ray.alignment.aligner import Aligner
from cvgl_ray.alignment.cell_source import Picked
from cvgl_ray.alignment.combine import mutual
from cvgl_ray.alignment.matching import together
from cvgl_ray.config import load_config
from cvgl_ray.distributed import session
from cvgl_ray.distributed.align import ClusterScore, settings_of
from cvgl_ray.distributed.cell_sources import sources_of
from cvgl_ray.distributed.cells import variants_of
from cvgl_ray.features.cell_projection import CHANNELS
from cvgl_ray.features.cell_stores import CellStores
from cvgl_ray.features.store import FEATURE, FeatureStore
from cvgl_ray.storage.files import file_digest

EVERY_POSE = 96  # queries
PART = 64  # images per file of the store, as extractions write them
NAMES = "query", "reference"


def stored(folder: Path, counts: tuple[int, int]) -> CellStores:
    """Cells of queries, turned by any quarters, and of references, several queries per reference."""
    section = load_config(None).alignment
    stores, digests = {}, {}
    for view, made, count in zip(NAMES, variants_of(section, *NAMES).values(), counts, strict=True):
        recipe = {
            "sides": list(made.sides),
            "headings": list(made.headings),
            "cells": {"stride": 16},
            "of": counts,
        }
        store = FeatureStore(folder, view, recipe)
        store.open()
        names = [f"{view}{number}" for number in range(count)]
        # No neighbours among the rows share a file: a training's rows are sorted by content.
        order = np.random.default_rng(0).permutation(count)
        for start in range(0, count, PART):
            few = [names[number] for number in order[start : start + PART]]
            if few[0] not in store.digests():
                rows = [cells_of(view, int(number), counts[1]) for number in order[start : start + PART]]
                store.append(few, few, np.stack(rows))
        stores[view], digests[view] = store, {name: name for name in names}
    return CellStores(stores, digests)


def cells_of(view: str, number: int, places: int) -> np.ndarray:
    """One image's row."""
    section = load_config(None).alignment
    made = variants_of(section, *NAMES)[view]
    place = torch.randn(CHANNELS, 20, 20, generator=torch.Generator().manual_seed(number % places))
    noise = torch.Generator().manual_seed(1 + number + (10**6 if view == "query" else 0))
    parts = []
    for side in made.sides:
        ground = F.normalize(F.adaptive_avg_pool2d(place, side), dim=0)
        for heading in made.headings:
            turns = round(heading / 90) - number % 4  # a query's own heading is one of four
            turned = torch.rot90(ground, turns, (1, 2)) if view == "query" else ground
            parts.append(F.normalize(turned + 0.15 * torch.randn(turned.shape, generator=noise), dim=0))
    return torch.cat([part.flatten() for part in parts]).half().numpy()


def read_rates(stores: CellStores, blocks: int = 8) -> str:
    """MB per second of blocks of 64 queries, from the disk and from the system's memory."""
    store, names = stores.stores["query"], list(stores.digests["query"])
    rng, rates = np.random.default_rng(1), []
    wanted = [[names[row] for row in rng.choice(len(names), 64, replace=False)] for _ in range(blocks)]
    for path in store.paths():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    for _ in range(2):
        began = time.perf_counter()
        read = sum(store.read(block, FEATURE).nbytes for block in wanted)
        rates.append(read / (time.perf_counter() - began) / 1e6)
    return f"{rates[0]:.0f} MB/s from the disk, {rates[1]:.0f} MB/s from memory"


class Peaks:
    """Most memory of this process and of the scoring actors that it started, looked at twice per second."""

    def __init__(self) -> None:
        self.own: dict[str, float] = defaultdict(float)  # GiB
        self.whole: dict[str, float] = defaultdict(float)
        self.seconds: dict[int, float] = {}  # of CPU, by actor
        self.ended = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self.ended.wait(0.5):
            parents = {int(path.name): _stat(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
            for pid, (parent, seconds) in parents.items():
                grandparent = parents.get(parent, (0, 0.0))[0]
                who = "driver" if pid == os.getpid() else "actor" if grandparent == os.getpid() else ""
                if who == "actor" and "ray::_Scorer" not in _read(pid, "cmdline"):
                    continue
                lines = _read(pid, "status").splitlines() if who else []
                gib = {line.split(":")[0]: int(line.split()[1]) / 2**20 for line in lines if " kB" in line}
                self.own[who] = max(self.own[who], gib.get("RssAnon", 0))
                self.whole[who] = max(self.whole[who], gib.get("VmRSS", 0))
                if who == "actor":
                    self.seconds[pid] = seconds

    def __str__(self) -> str:
        return ", ".join(
            f"{who} {self.own[who]:.2f} GiB own, {self.whole[who]:.2f} in all" for who in self.own if who
        )


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:  # it has ended
        return ""


def _stat(folder: Path) -> tuple[int, float]:
    """A process's parent, and the seconds of CPU that it has taken."""
    fields = _read(int(folder.name), "stat").rpartition(")")[2].split()
    if not fields:
        return 0, 0.0
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def vectors(counts: tuple[int, int]) -> torch.Tensor:
    """Cosines [Nq, Nr]."""
    rng = np.random.default_rng(0)
    reference = rng.standard_normal((counts[1], 64))
    query = reference[np.arange(counts[0]) % counts[1]] + 2.2 * rng.standard_normal((counts[0], 64))
    sides = [F.normalize(torch.from_numpy(side).float(), dim=1) for side in (query, reference)]
    return sides[0] @ sides[1].T


def rounds(stores: CellStores, counts: tuple[int, int], memory: float, number: int) -> None:
    settings = settings_of(load_config(None).alignment)
    settings = replace(settings, memory=memory * 2**30, all_below=0)
    cosines, truth = vectors(counts), np.arange(counts[0]) % counts[1]
    print(f"vectors alone: {100 * float((cosines.argmax(1).numpy() == truth).mean()):.1f} % of queries right")
    peaks, began = Peaks(), time.perf_counter()
    ids = {view: list(digests) for view, digests in stores.digests.items()}
    query, references = sources_of(stores, ids, settings.memory)
    aligner = Aligner(query, references, settings, ClusterScore(settings))
    print(f"memory_gib {memory:g}: {type(query).__name__}, {time.perf_counter() - began:.0f} s", flush=True)
    asked, laid_on = aligner.compared()
    few = Picked(asked, np.arange(min(counts[0], EVERY_POSE)))
    proposed = cosines[: len(few)].topk(settings.candidates, dim=1).indices.numpy()
    spent = 0.0
    for _ in range(2):  # the actors start in the first
        began = time.perf_counter()
        aligner.score(few, laid_on, aligner.prior, proposed)
        took = time.perf_counter() - began
        time.sleep(1.0)
        before, spent = spent, sum(peaks.seconds.values())
    each, spent = 1000 / proposed.size, spent - before
    print(
        f"every pose of {len(few)} queries: {each * took:.2f} ms per pair, {each * spent:.2f} ms of "
        f"CPU; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    for done in range(number):
        began = time.perf_counter()
        total = together(aligner, cosines, 10)
        scored = time.perf_counter() - began
        pairs = mutual(total)
        right = 100 * (truth[pairs[0]] == pairs[1]).mean()
        aligner.learn(*pairs)
        learned = time.perf_counter() - began - scored
        best = 100 * float((total.argmax(1).numpy() == truth).mean())
        poses = int((aligner.prior.heading > -np.inf).sum() * (aligner.prior.width > -np.inf).sum())
        time.sleep(1.0)  # for `peaks` to look once more
        spent, load = sum(peaks.seconds.values()), os.getloadavg()[0]
        print(
            f"round {done}: scored in {scored:.0f} s, learned in {learned:.1f} s, CPU of actors {spent:.0f} "
            f"s so far, load {load:.1f}; right: {best:.1f} % of queries, {right:.1f} % of {len(pairs[0])} "
            f"mutual pairs; scores {file_digest(total.numpy().tobytes())[:8]}; {poses} poses are left; "
            f"peaks: {peaks}",
            flush=True,
        )
    peaks.ended.set()


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--queries", default=3000, show_default=True)
@click.option("--references", default=701, show_default=True)
@click.option("--memory-gib", "memories", multiple=True, default=[1.0, 8.0], show_default=True)
@click.option("--rounds", "number", default=2, show_default=True)
def main(folder: Path, queries: int, references: int, memories: tuple[float, ...], number: int) -> None:
    began, counts = time.perf_counter(), (queries, references)
    stores = stored(folder, counts)
    for view, store in stores.stores.items():
        size = sum(path.stat().st_size for path in store.paths())
        print(f"{view}: {size / len(store.digests()):.0f} bytes per image")
    print(f"cells made in {time.perf_counter() - began:.0f} s; {read_rates(stores)}", flush=True)
    session.connect()
    for memory in memories:
        rounds(stores, counts, memory, number)
    ray.shutdown()


if __name__ == "__main__":
    main()
