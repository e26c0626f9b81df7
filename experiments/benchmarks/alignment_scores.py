"""How well the label-free score follows R@1 where images are aligned: a run's cells and vectors, made worse.

    python experiments/benchmarks/alignment_scores.py RUN [--config NAME]… [--set KEY=VALUE]…

RUN: of `cvgl-ray train`, aligned, its images still there. Each configuration trains anew on what is left of
its cells and vectors, and is judged after each round. Prints a row per configuration and round: R@1
query->reference / reference->query of vectors and cells together, the score by vectors alone and by both;
then the scores' rank correlation with R@1 (mean of both directions). Labels are read for R@1 alone.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from alignment_parts import Run, cosines_by, only, recall
from scipy.stats import spearmanr

from cvgl_ray.alignment.aligner import Aligner
from cvgl_ray.alignment.halves import laid_halves
from cvgl_ray.alignment.matching import alignment_matcher, together
from cvgl_ray.alignment.poses import score_pairs
from cvgl_ray.alignment.scoring import Score, in_memory
from cvgl_ray.distributed.align import settings_of
from cvgl_ray.distributed.data import load_labels
from cvgl_ray.em.judge import HalfModels
from cvgl_ray.em.rounds import frozen_graphs, run_rounds, start
from cvgl_ray.features.cells import Cells


@dataclass(frozen=True)
class Worse:
    """What is left: of the cells so many channels, of the vectors so many dimensions; noise in deviations."""

    channels: int = 10_000
    dimensions: int = 10_000
    cell_noise: float = 0.0
    vector_noise: float = 0.0
    headings: bool = True

    def cells(self, cells: Cells, generator: torch.Generator) -> Cells:
        """Fewer channels, and noise."""
        maps = cells.maps[:, :, : self.channels].float()
        maps = maps + self.cell_noise * maps.std() * torch.randn(maps.shape, generator=generator)
        return replace(cells, maps=maps.half())

    def vectors(self, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Fewer dimensions, drawn, and noise."""
        kept = np.random.default_rng(0).permutation(rows.shape[1])[: self.dimensions]
        noise = rng.standard_normal((len(rows), len(kept))).astype(np.float32)
        return np.ascontiguousarray(rows[:, kept]) + self.vector_noise * rows[:, kept].std(0) * noise


CONFIGURATIONS = {
    "all": Worse(),
    "no headings": Worse(headings=False),
    "12 channels": Worse(channels=12),
    "4 channels": Worse(channels=4),
    "cells noisy": Worse(cell_noise=2),
    "vectors noisy": Worse(vector_noise=1),
    "vectors noisier": Worse(vector_noise=3),
    "64 dimensions": Worse(dimensions=64),
    "both noisy": Worse(cell_noise=2, vector_noise=1),
    "both noisier": Worse(cell_noise=4, vector_noise=2),
}


def rows_of(run: Run, worse: Worse) -> list[tuple[float, float, float, float]]:
    """After each round R@1 of both directions, in percent, and the score by vectors alone and by both."""
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(1)
    config, settings = run.config, settings_of(run.config.alignment)
    query, reference = (worse.vectors(rows, rng) for rows in run.vectors)
    learning = replace(config.learning, agreement=True)
    scored: Score = in_memory(lambda *arguments: score_pairs(*arguments, dtype=settings.dtype))
    aligner = Aligner(
        worse.cells(run.query, generator),
        [worse.cells(cells, generator) for cells in run.references],
        settings,
        scored if worse.headings else only(scored, heading=True),
    )
    learner, _ = start(query, reference, learning)
    judge = HalfModels(query, reference, learning)
    matcher = alignment_matcher(aligner, config.estep, frozen_graphs(query, reference, learner.adapter))
    labels = load_labels(config.dataset, "", run.catalog)
    assert labels is not None
    places = [labels.place_ids(ids) for ids in run.ids]
    found = []
    for _ in run_rounds(learner, query, reference, learning, matcher=matcher):
        laid = laid_halves(aligner, config.estep.neighbours, learning.seed)
        alone, both = (judge.judge(learner, one)["score"] for one in (None, laid))
        cosines = cosines_by(learner, query, reference)
        total = together(aligner, cosines, config.retrieval.neighbours, keep=True)
        found.append((recall(total, *places), recall(total.T, *places[::-1]), alone, both))
    return found


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--config", "chosen", multiple=True, help="All where none is named.")
@click.option("--set", "overrides", multiple=True)
def main(folder: Path, chosen: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    run = Run(folder, overrides)
    every = []
    for name in chosen or CONFIGURATIONS:
        rows = rows_of(run, CONFIGURATIONS[name])
        every += rows
        for number, (forth, back, alone, both) in enumerate(rows, start=1):
            click.echo(f"| {name} | {number} | {forth:.1f} / {back:.1f} | {alone:.2f} | {both:.2f} |")
    table = np.array(every)
    ranks = [spearmanr(table[:, column], table[:, :2].sum(1)).statistic for column in (2, 3)]
    click.echo(f"Spearman over {len(every)}: vectors alone {ranks[0]:.2f}, both {ranks[1]:.2f}")


if __name__ == "__main__":
    main()
