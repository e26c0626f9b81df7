"""The Python API's model: two arrays of frozen features in, an adapted search out; nothing here needs Ray."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvgl_ray.bundle import Bundle, bundle_of, load_bundle, load_pairs, pairs_of, save_bundle
from cvgl_ray.config import Config
from cvgl_ray.em.adapters import embed
from cvgl_ray.em.fit import fit as fit_learner
from cvgl_ray.em.inputs import check_rows, check_same_columns, check_views, doubts
from cvgl_ray.em.retrieval import banked
from cvgl_ray.errors import InputError
from cvgl_ray.evaluation.metrics import Metrics, retrieval_metrics
from cvgl_ray.features.views import QUERY, REFERENCE, row_digests, unit_rows
from cvgl_ray.search.topk import top_k

log = logging.getLogger(__name__)

VIEWS = {"query": QUERY, "reference": REFERENCE}

Array = np.ndarray | torch.Tensor
Name = int | str
Pair = tuple[Name, Name, float]


class Model:
    """A trained adapter and what retrieval needs beside it. Made by `fit` or `load`."""

    def __init__(self, bundle: Bundle, pairs: Sequence[Pair]) -> None:
        self.bundle, self._pairs = bundle, list(pairs)

    @property
    def scores(self) -> dict[str, float | None]:
        """Label-free scores: "score" in [0, 1], None where nobody judged, "score_low", "score_high" and more.

        No label is read. See `cvgl_ray.em.judge` for what each is, and README for what the score can say.
        """
        return dict(self.bundle.scores)

    @property
    def pseudo_labels(self) -> list[Pair]:
        """The last round's pairs: query, reference, and their cosine in [-1, 1].

        Both are row numbers of the arrays that `fit` was given, or image ids in a model of `cvgl-ray train`.
        """
        return list(self._pairs)

    def embed(self, rows: Array, view: str) -> np.ndarray:
        """Embeddings [n, W] float32 of unit length of frozen features [n, D]; view: "query" or "reference".

        Raises InputError for another view, and for rows that are not finite or have not D columns.
        """
        if view not in VIEWS:
            raise InputError(f'view is {view!r}; give "query" or "reference"')
        return embed(self.bundle.adapter, self._checked("rows", rows), VIEWS[view])

    def search(self, queries: Array, references: Array, k: int = 5) -> tuple[np.ndarray, np.ndarray]:
        """The k best references of each query, by frozen features [n, D] and [m, D].

        Returns indices [n, k] int64 into the references, best first, and scores [n, k] float32: cosines, by
        CSLS less the reference's hubness (`config.retrieval`).
        Raises InputError for rows that are not finite or have not D columns, and for a k above m.
        """
        sides = self._checked("queries", queries), self._checked("references", references)
        indices, scores = top_k(*self.bundle.retriever(self.bundle.config.retrieval).sides(*sides), k)
        return indices.numpy(), scores.numpy()

    def save(self, folder: str | Path) -> None:
        """Write the model as a bundle, which `load` and `cvgl-ray localize` read; one that is there goes."""
        save_bundle(Path(folder), self.bundle, [(str(q), str(r), cosine) for q, r, cosine in self._pairs])

    def _checked(self, name: str, rows: Array) -> np.ndarray:
        array = as_array(rows)
        check_rows(name, array)
        if array.shape[1] != self.bundle.adapter.dimension:
            raise InputError(
                f"{name} has {array.shape[1]} columns, but the model was trained on features of "
                f"{self.bundle.adapter.dimension}; take those of the same backbone and settings"
            )
        return array


def fit(queries: Array, references: Array, config: Config | None = None) -> Model:
    """Learn from two unlabelled views' frozen features [N, D] and [M, D], NumPy or torch, of any float type.

    config: None for the defaults; of it the sections adapter, estep, mstep, loss, retrieval and run count.
    Raises InputError, naming the argument, for shapes that do not fit, empty arrays and NaN.
    """
    query, reference, config = as_array(queries), as_array(references), config or Config()
    check_views(query, reference)
    digests = row_digests(query), row_digests(reference)
    for doubt in doubts(*digests):
        log.warning("%s", doubt)
    learner, _ = fit_learner(query, reference, config.learning)
    bundle = bundle_of(learner, banked(query, reference), digests, config, {})
    return Model(bundle, pairs_of(learner))


def load(folder: str | Path) -> Model:
    """The model in a folder that `Model.save` or `cvgl-ray train` (DIR/bundle) left.

    Raises InputError where it is no bundle, is damaged, or was written by another version.
    """
    bundle, pairs = load_bundle(Path(folder)), load_pairs(Path(folder))
    if bundle.recipes:
        return Model(bundle, pairs)
    return Model(bundle, [(int(query), int(reference), cosine) for query, reference, cosine in pairs])


def evaluate(
    model: Model | None,
    queries: Array,
    references: Array,
    query_places: Sequence[str],
    reference_places: Sequence[str],
) -> dict[str, Any]:
    """Figures of a retrieval where the places of all rows are known: the only function that takes labels.

    queries [N, D], references [M, D]: frozen features; places [N], [M]: a reference of the query's place is
    right, the place "" belongs to no one. model: None for the frozen features alone.
    Returns {"frozen" | "adapted": {"query->reference" | "reference->query": figures in percent}} and, with a
    model, "trained_on_test_images": whether it has seen one of these rows.
    """
    rows = [as_array(side) for side in (queries, references)]
    places = [np.asarray(side, dtype=str) for side in (query_places, reference_places)]
    names = ("queries", "references")
    for name, side, of_side in zip(names, rows, places, strict=True):
        check_rows(name, side)
        if of_side.shape != (len(side),):
            raise InputError(f"{name} has {len(side)} rows, and {of_side.size} places are given; one per row")
    check_same_columns(*rows)
    report: dict[str, Any] = {"frozen": _both_ways([unit_rows(side) for side in rows] * 2, places)}
    if model is not None:
        retriever = model.bundle.retriever(model.bundle.config.retrieval)
        forth = retriever.sides(rows[0], rows[1], QUERY)
        back = retriever.sides(rows[1], rows[0], REFERENCE)
        report["adapted"] = _both_ways([forth[0], forth[1], back[1], back[0]], places)
        seen = zip(rows, model.bundle.trained_on, strict=True)
        report["trained_on_test_images"] = any(
            bool(np.isin(row_digests(side), known).any()) for side, known in seen
        )
    return report


def _both_ways(sides: Sequence[Array], places: Sequence[np.ndarray]) -> dict[str, Metrics]:
    """Figures of sides (query, reference) asked forth and (query, reference) asked back."""
    vectors = [torch.as_tensor(side) for side in sides]
    return {
        "query->reference": retrieval_metrics(vectors[0], vectors[1], places[0], places[1]),
        "reference->query": retrieval_metrics(vectors[3], vectors[2], places[1], places[0]),
    }


def as_array(rows: Array) -> np.ndarray:
    """Rows as a NumPy array of half or single precision; other numbers become single precision."""
    if isinstance(rows, torch.Tensor):
        rows = rows.detach().cpu()
        rows = (rows.float() if rows.dtype == torch.bfloat16 else rows).numpy()
    array = np.asarray(rows)
    keep = array.dtype in (np.float16, np.float32) or not np.issubdtype(array.dtype, np.number)
    return array if keep else array.astype(np.float32)
