"""What each part of the alignment gives: rounds from a finished run's cells and vectors, a part left out.

    python experiments/benchmarks/alignment_parts.py RUN [--part NAME]… [--set KEY=VALUE]…

RUN: of `cvgl-ray train`, aligned, its images still there. Nothing is extracted. Prints a row per part: R@1
query->reference / reference->query of the vectors that its rounds adapt, of cells alone and of both together,
all by CSLS, and seconds of CPU. Labels are read after everything else. --set: of the learning.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from unittest import mock

import click
import numpy as np
import torch

from cvgl_ray.alignment import combine
from cvgl_ray.alignment.aligner import Aligner
from cvgl_ray.alignment.cell_learning import ByGradient, CellLearning, ClosedForm
from cvgl_ray.alignment.cell_source import Source
from cvgl_ray.alignment.matching import alignment_matcher, together
from cvgl_ray.alignment.poses import Found, score_pairs
from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.alignment.scoring import Score, in_memory
from cvgl_ray.bundle import load_bundle
from cvgl_ray.config import Config, load_config
from cvgl_ray.distributed.align import settings_of
from cvgl_ray.distributed.alignment import align_data_set
from cvgl_ray.distributed.data import load_labels, scan
from cvgl_ray.distributed.extract import stored
from cvgl_ray.em.adapters import ViewCentred, embed
from cvgl_ray.em.learner import Learner
from cvgl_ray.em.rounds import frozen_graphs, run_rounds, start
from cvgl_ray.features.cells import Cells
from cvgl_ray.features.table import select
from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.search.csls import csls


class Frozen(ClosedForm):
    """Learns nothing of cells."""

    def fit(self, adapter: ViewCentred, query: torch.Tensor, reference: torch.Tensor) -> None:
        """See CellLearning."""


def only(score: Score, *, heading: bool = False, width: int = -1) -> Score:
    """Headings as the pictures lie, or one width, and no other."""

    def scored(query: Source, references: Source, prior: PosePrior, candidates: np.ndarray | None) -> Found:
        if heading:
            prior = replace(prior, heading=np.where(np.arange(len(prior.heading)) == 0, 0.0, -np.inf))
        if width >= 0 and np.isfinite(prior.width[width]):
            prior = replace(prior, width=np.where(np.arange(len(prior.width)) == width, 0.0, -np.inf))
        return score(query, references, prior, candidates)

    return scored


def middles(dtype: torch.dtype) -> Score:
    """Pictures laid with their middles on each other, of each width."""

    def scored(
        query: Cells, references: Sequence[Cells], prior: PosePrior, candidates: np.ndarray | None
    ) -> Found:
        found = []
        for width in np.flatnonzero(prior.width > -np.inf):
            side = min(query.maps.shape[-1], references[int(width)].maps.shape[-1])
            alone = replace(prior, width=np.where(np.arange(len(prior.width)) == width, prior.width, -np.inf))
            banks = [cut(cells, side) for cells in references]
            found.append(score_pairs(cut(query, side), banks, alone, candidates, overlap=0.99, dtype=dtype))
        best = np.stack([one.score for one in found]).argmax(0)
        rows, columns = np.indices(best.shape)
        whole = Found(
            *(
                np.stack([getattr(one, name) for one in found])[best, rows, columns]
                for name in Found.__annotations__
            )
        )
        return replace(whole, row=np.zeros_like(whole.row), column=np.zeros_like(whole.column))

    return in_memory(scored)


def cut(cells: Cells, side: int) -> Cells:
    """The middle `side` cells of each side."""
    first = (cells.maps.shape[-1] - side) // 2
    part = slice(first, first + side)
    return Cells(cells.maps[..., part, part], cells.masks[..., part, part])


def cosines_by(learner: Learner, query: np.ndarray, reference: np.ndarray) -> torch.Tensor:
    """Cosines [Nq, Nr] of vectors [Nq, D] and [Nr, D] as a learner embeds them."""
    one, other = (
        embed(learner.adapter, rows, view) for rows, view in ((query, QUERY), (reference, REFERENCE))
    )
    return torch.from_numpy(one @ other.T)


class Run:
    """A finished run's cells, vectors and configuration."""

    def __init__(self, folder: Path, overrides: tuple[str, ...]) -> None:
        bundle = load_bundle(folder / "bundle")
        self.config: Config = load_config(None, (*overrides, "run.agreement=false"), bundle.config)
        catalog = scan(self.config.dataset, "", self.config.backbone).select(split="train")
        self.catalog, cache = catalog, Path(self.config.features.cache or folder / "features")
        views = self.config.dataset.query_view, self.config.dataset.reference_view
        data = align_data_set(self.config, catalog, folder)[1]
        made = stored(catalog, bundle.recipes, cache)
        assert data is not None
        assert made is not None
        self.ids = [catalog.select(view=view).image_ids for view in views]
        [self.query], self.references = (
            data.stores.load(view, ids) for view, ids in zip(views, self.ids, strict=True)
        )
        self.vectors = [
            select(made.tables[view], ids).features.astype(np.float32)
            for view, ids in zip(views, self.ids, strict=True)
        ]

    def scores(
        self,
        score: Score,
        learning: CellLearning,
        rounds: int,
        *,
        vectors_learn: bool = True,
        prior_learns: bool = True,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Scores [Nq, Nr] of vectors, of cells and of both after so many rounds."""
        config, settings = self.config, settings_of(self.config.alignment)
        query, reference = self.vectors
        learner, _ = start(query, reference, config.learning)
        aligner = Aligner(self.query, self.references, settings, score, learning)
        if not prior_learns:
            aligner._fit_prior = lambda *_: None  # type: ignore[method-assign]
        if not vectors_learn:
            learner.m_step = lambda *_: {}  # type: ignore[method-assign]
        graphs = frozen_graphs(query, reference, learner.adapter)
        if rounds:
            matcher = alignment_matcher(aligner, config.estep, graphs)
            for _ in run_rounds(learner, query, reference, config.learning, matcher=matcher):
                pass
        cosines = cosines_by(learner, query, reference)
        neighbours = config.retrieval.neighbours
        both = together(aligner, cosines, neighbours, keep=rounds > 0)
        return (
            csls(cosines, neighbours),
            csls(aligner.align(), neighbours),
            both,
        )


def parts(run: Run) -> dict[str, Callable[[], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
    """The whole, then each with a part left out."""
    dtype, rounds = settings_of(run.config.alignment).dtype, run.config.mstep.rounds
    widths = run.config.alignment.widths
    same = min(range(len(widths)), key=lambda number: abs(widths[number] - 1))
    closed, mstep, loss = ClosedForm(), run.config.mstep, run.config.loss

    score = in_memory(partial(score_pairs, dtype=dtype))

    def by_gradient(steps: int, rate: float) -> CellLearning:
        return ByGradient(mstep.model_copy(update={"steps_per_round": steps, "learning_rate": rate}), loss)

    def without_csls() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        with mock.patch.object(combine, "csls", lambda matrix, _: matrix):
            return run.scores(score, closed, rounds)

    return {
        "all": lambda: run.scores(score, closed, rounds),
        "no headings": lambda: run.scores(only(score, heading=True), closed, rounds),
        "no widths": lambda: run.scores(only(score, width=same), closed, rounds),
        "no positions": lambda: run.scores(middles(dtype), closed, rounds),
        "no CSLS": without_csls,
        "no rounds": lambda: run.scores(score, closed, 0),
        "cells frozen": lambda: run.scores(score, Frozen(), rounds),
        "poses not learned": lambda: run.scores(score, closed, rounds, prior_learns=False),
        "vectors frozen": lambda: run.scores(score, closed, rounds, vectors_learn=False),
        "paper 10": lambda: run.scores(score, by_gradient(10, 2e-4), rounds),
        "paper 100": lambda: run.scores(score, by_gradient(100, 1e-3), rounds),
        "paper 300": lambda: run.scores(score, by_gradient(300, 1e-3), rounds),
    }


def recall(matrix: torch.Tensor, own: np.ndarray, other: np.ndarray) -> float:
    """R@1 in percent of the rows whose place the columns have."""
    asked = np.isin(own, other)
    return 100 * float((other[matrix.argmax(1).numpy()] == own)[asked].mean())


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--part", "chosen", multiple=True, help="All where none is named.")
@click.option("--set", "overrides", multiple=True)
def main(folder: Path, chosen: tuple[str, ...], overrides: tuple[str, ...]) -> None:
    torch.set_num_threads(1)
    run = Run(folder, overrides)
    known = parts(run)
    for name in chosen or known:
        began = time.process_time()
        found = known[name]()
        took = time.process_time() - began
        labels = load_labels(run.config.dataset, "", run.catalog)
        assert labels is not None
        places = [labels.place_ids(ids) for ids in run.ids]
        columns = [f"{recall(m, *places):.1f} / {recall(m.T, *places[::-1]):.1f}" for m in found]
        print(f"| {name} | {' | '.join(columns)} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    main()
