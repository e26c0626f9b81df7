"""What a query saves that asks no more candidates once its best is clear, and whether it costs an answer.

    python experiments/benchmarks/early_stop.py RUN [--set KEY=VALUE]…

RUN: of `cvgl-ray train`, aligned, its images still there. Every query of its data set is located among all
references of its gallery. Prints per doubt (0: all candidates are laid) R@1, candidates per query and seconds
of CPU.
"""

import time
from functools import partial
from pathlib import Path
from unittest import mock

import click
import numpy as np
import torch

from cvgl_ray.alignment.combine import Combination
from cvgl_ray.alignment.early import DOUBT, Laid, Lay, laid_until_clear
from cvgl_ray.bundle import load_bundle
from cvgl_ray.catalog.table import Catalog, concat
from cvgl_ray.config.differences import load_on_bundle
from cvgl_ray.distributed import localize_aligned
from cvgl_ray.distributed.data import load_labels, scan
from cvgl_ray.distributed.extract import file_digests_of, stored
from cvgl_ray.evaluation.protocols import directions
from cvgl_ray.features.table import select
from cvgl_ray.search.topk import top_k


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--set", "overrides", multiple=True)
def main(folder: Path, overrides: tuple[str, ...]) -> None:
    bundle = load_bundle(folder / "bundle")
    config = load_on_bundle(bundle.config, folder / "bundle", overrides=overrides)
    cache, catalog = (
        Path(config.features.cache or folder / "features"),
        scan(config.dataset, "", config.backbone),
    )
    one = directions(catalog, config.dataset.query_view, config.dataset.reference_view)[0]
    views = config.dataset.query_view, config.dataset.reference_view
    images = concat([one.queries, one.gallery])
    file_digests_of(images.uris, cache, False, "")  # of files that were copied since
    made, model = stored(images, bundle.recipes, cache), bundle.retriever(config.retrieval)
    assert made is not None
    sides = zip(views, (one.queries, one.gallery), strict=True)
    asked, searched = (select(made.tables[view], side.image_ids) for view, side in sides)
    labels = load_labels(config.dataset, "", catalog)
    assert labels is not None
    queries, gallery = model.sides(asked.features, searched.features)
    best, scores = (part.numpy() for part in top_k(queries, gallery, config.alignment.candidates))
    own, other = (labels.place_ids(side.image_ids) for side in (one.queries, one.gallery))
    known = np.isin(own, other)
    print(f"vectors alone: R@1 {100 * (other[best[:, 0]] == own)[known].mean():.1f}")
    torch.set_num_threads(1)
    for doubt in (0.0, DOUBT):
        kept: list[Laid] = []
        remembered = partial(_remembered, kept, doubt)
        began = time.process_time()
        with mock.patch.object(localize_aligned, "laid_until_clear", remembered):
            answers = localize_aligned.align_candidates(
                Catalog(one.queries.rows), Catalog(one.gallery.rows), (best, scores), 1, bundle, config, cache
            )
        took = time.process_time() - began
        found = np.array([answer[0]["row"] for answer in answers])
        print(
            f"doubt {doubt}: R@1 {100 * (other[found] == own)[known].mean():.1f}, "
            f"{kept[0].laid.sum(1).mean():.1f} of {best.shape[1]} candidates per query, {took:.0f} s of CPU",
            flush=True,
        )


def _remembered(
    kept: list[Laid], doubt: float, scores: np.ndarray, weights: Combination, lay: Lay, first: int
) -> Laid:
    kept.append(laid_until_clear(scores, weights, lay, first, doubt))
    return kept[-1]


if __name__ == "__main__":
    main()
