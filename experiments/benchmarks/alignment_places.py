"""Places whose views differ in heading, footprint or centre: frozen, adapted, aligned R@1, one configuration.

    python experiments/benchmarks/alignment_places.py ROOT --checkpoint FILE [--backbone NAME] [--variant V]…

ROOT holds a folder per variant: drone/ and satellite/ images and labels.csv (image_id,place_id), which is
read after everything else. Prints a row per variant: R@1 query->reference / reference->query of the frozen
vectors, of those that `em` adapts by themselves, and of vector and alignment together; what was found; time.
"""

import csv
import time
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

from cvgl_ray.alignment.aligner import Aligner, Settings
from cvgl_ray.alignment.choice import Choice, choose
from cvgl_ray.alignment.matching import alignment_matcher, together
from cvgl_ray.config import Config, load_config
from cvgl_ray.em.adapters import ViewCentred, embed
from cvgl_ray.em.fit import fit
from cvgl_ray.em.rounds import frozen_graphs, run_rounds, start
from cvgl_ray.features.backbone import FrozenBackbone
from cvgl_ray.features.cell_model import CellModel
from cvgl_ray.features.cell_projection import projected, projection
from cvgl_ray.features.cells import Cells, cells_of, resized, turn
from cvgl_ray.features.pretransform import Pretransform
from cvgl_ray.features.views import QUERY, REFERENCE
from cvgl_ray.features.weights import build_model
from cvgl_ray.search.csls import csls

SIDE = 14  # cells of a query
SIDES = (20, 17, 14, 12, 10, 8, 7)  # cells of a reference, one of each ground width
HEADINGS = [30.0 * number for number in range(12)]
VIEWS = ("drone", "satellite")


@click.command()
@click.argument("root", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--backbone", default="mobilenetv2_100", show_default=True)
@click.option("--checkpoint", required=True, type=click.Path(exists=True))
@click.option("--variant", "variants", multiple=True, help="Folders below ROOT; all where none is named.")
@click.option("--single", is_flag=True, help="Vectors of one forward, without rings.")
@click.option("--half", is_flag=True, help="Align in bfloat16, where the processor is quick at it.")
def main(
    root: Path,
    backbone: str,
    checkpoint: str,
    variants: tuple[str, ...],
    single: bool,
    half: bool,
) -> None:
    model = build_model(backbone, checkpoint=checkpoint)
    settings = Settings(dtype=torch.bfloat16 if half else torch.float32)
    for variant in variants or sorted(path.name for path in root.iterdir() if path.is_dir()):
        started = time.process_time()
        ids, pictures = zip(*(read_view(root / variant, view) for view in VIEWS), strict=True)
        aligner = Aligner(*all_cells(CellModel(model), pictures), settings)
        extracted = time.process_time()
        aligner.align()
        choice = choose(aligner.prior, np.array([SIDE / side for side in SIDES]))
        vectors = [
            vectors_of(model, part, crops, turns, single)
            for part, crops, turns in views_of(pictures, choice, single)
        ]
        config = load_config(None)
        own, _ = fit(vectors[0], vectors[1], config.learning)
        adapted = similarities(own.adapter, vectors)
        aligned = learn(aligner, vectors, config)
        truth = read_labels(root / variant, ids)
        rows = [
            recall(scores, truth)
            for scores in (torch.from_numpy(vectors[0] @ vectors[1].T), csls(adapted, 10), aligned)
        ]
        print(
            f"{variant}: frozen {rows[0]}, adapted {rows[1]}, aligned {rows[2]}; {choice.evidence}; "
            f"vectors' forwards {choice.forwards}; {extracted - started:.0f} s of CPU for cells, "
            f"{time.process_time() - started:.0f} s in all",
            flush=True,
        )


def read_view(folder: Path, view: str) -> tuple[list[str], torch.Tensor]:
    """Image ids, and square pictures [N, 3, S, S] uint8, of 128 px at least."""
    paths = sorted((folder / view).iterdir())
    pictures = [
        torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1) for path in paths
    ]
    side = max(picture.shape[-1] for picture in pictures)
    square = [resized(picture[None], side)[0].round().to(torch.uint8) for picture in pictures]
    return [f"{view}/{path.name}" for path in paths], torch.stack(square)


def all_cells(model: CellModel, pictures: tuple[torch.Tensor, ...]) -> tuple[Cells, list[Cells]]:
    """The queries' cells in all headings, and the references' of all widths."""
    query = cells_of(model, pictures[0], SIDE, HEADINGS)
    references = [cells_of(model, pictures[1], side) for side in SIDES]
    directions = projection([query], references)
    return projected(query, directions), [projected(cells, directions) for cells in references]


def views_of(
    pictures: tuple[torch.Tensor, ...], choice: Choice, single: bool
) -> list[tuple[torch.Tensor, tuple[float, ...], tuple[float, ...]]]:
    if single:
        return [(part, (1.0,), (0.0,)) for part in pictures]
    return [
        (pictures[0], choice.query_crops, choice.query_headings),
        (pictures[1], choice.reference_crops, choice.reference_headings),
    ]


def vectors_of(
    model: torch.nn.Module,
    pictures: torch.Tensor,
    crops: tuple[float, ...],
    headings: tuple[float, ...],
    single: bool,
) -> np.ndarray:
    """The mean unit vector [N, D] over crops and headings, of the recommended layers and rings."""
    options = (
        {"layers": ("final",), "pooling": "gem", "rings": ()}
        if single
        else {"layers": (-2, "final"), "pooling": "mean", "rings": (0.25, 0.5, 0.7, 0.9, 1.1, 1.5)}
    )
    backbone = FrozenBackbone(model, image_size=224, crop_fraction=1.0, **options)
    view, total = Pretransform(crops=crops), np.zeros(())
    for heading in headings:
        turned = turn(pictures.float(), heading).round().clamp(0, 255).to(torch.uint8)
        prepared = [
            backbone.preparing.prepare(Image.fromarray(picture.permute(1, 2, 0).numpy()), view)
            for picture in turned
        ]
        total = total + np.concatenate(
            [backbone.embed(np.stack(prepared[at : at + 16]), view) for at in range(0, len(prepared), 16)]
        )
    rows: np.ndarray = (total / np.linalg.norm(total, axis=1, keepdims=True)).astype(np.float32)
    return rows


def learn(aligner: Aligner, vectors: list[np.ndarray], config: Config) -> torch.Tensor:
    """Rounds of pairs and poses; the scores of vector and alignment together."""
    learner, _ = start(vectors[0], vectors[1], config.learning)
    graphs = frozen_graphs(vectors[0], vectors[1], learner.adapter)
    matcher = alignment_matcher(aligner, config.estep, graphs)
    for _ in run_rounds(learner, vectors[0], vectors[1], config.learning, matcher=matcher):
        pass
    return together(aligner, similarities(learner.adapter, vectors), config.retrieval.neighbours)


def similarities(adapter: ViewCentred, vectors: list[np.ndarray]) -> torch.Tensor:
    sides = (embed(adapter, rows, view) for rows, view in zip(vectors, (QUERY, REFERENCE), strict=True))
    one, other = sides
    return torch.from_numpy(one @ other.T)


def read_labels(folder: Path, ids: tuple[list[str], ...]) -> list[np.ndarray]:
    with open(folder / "labels.csv", newline="") as handle:
        place = {row["image_id"]: row["place_id"] for row in csv.DictReader(handle)}
    return [np.array([place[image] for image in view]) for view in ids]


def recall(scores: torch.Tensor, truth: list[np.ndarray]) -> str:
    """R@1 in percent of the images whose place the other view has, both ways."""
    found = []
    for matrix, (own, other) in ((scores, truth), (scores.T, truth[::-1])):
        asked = np.isin(own, other)
        found.append(100 * float((other[matrix.argmax(1).numpy()] == own)[asked].mean()))
    return " / ".join(f"{value:.1f}" for value in found)


if __name__ == "__main__":
    main()
