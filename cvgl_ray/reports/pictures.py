"""Pictures for people: what was retrieved, and thumbnails for the projector."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from cvgl_ray.catalog.table import Catalog, Labels
from cvgl_ray.config import Dataset
from cvgl_ray.em.matching import EXAMPLE_DEPTH, EXAMPLES
from cvgl_ray.em.retrieval import Retriever
from cvgl_ray.evaluation.embedded import direction_embeddings, with_features
from cvgl_ray.evaluation.protocols import directions
from cvgl_ray.features.pixels import BrokenImageError, decode
from cvgl_ray.features.store import FeatureTable
from cvgl_ray.reports.tables import retrieval_sheet
from cvgl_ray.search.ranks import top_k
from cvgl_ray.storage.filesystem import read_bytes

ROUNDS = 10  # evenly spaced; TensorBoard shows no more
SIDE_PX = 96  # what is kept of an image while a picture is made
READERS = 8

# A query's image id and those of its best references, best first; several of them are one round's examples.
Example = tuple[str, list[str]]


def round_sheets(history: Sequence[Sequence[Example]], uris: Mapping[str, str]) -> dict[int, np.ndarray]:
    """By number of a few rounds, a picture [H, W, 3] uint8 of its examples.

    history: the examples of all rounds; uris: by image_id. No label is read, so no frame says who is right.
    """
    numbers = np.unique(np.linspace(0, len(history) - 1, ROUNDS).astype(int)).tolist()
    rounds = {number: history[number] for number in numbers}
    shown = {name for examples in rounds.values() for query, best in examples for name in (query, *best)}
    tiles = load_tiles({name: uris[name] for name in shown})
    return {
        number: retrieval_sheet(
            [tiles[query] for query, _ in examples], [[tiles[name] for name in best] for _, best in examples]
        )
        for number, examples in rounds.items()
    }


def final_sheets(
    catalog: Catalog, labels: Labels, tables: dict[str, FeatureTable], dataset: Dataset, model: Retriever
) -> dict[str, np.ndarray]:
    """By direction, a picture [H, W, 3] uint8 of a few evenly spaced test queries and their best references.

    The right references have a green frame, the others a red one.
    """
    sheets = {}
    for direction in directions(with_features(catalog, tables), dataset.query_view, dataset.reference_view):
        query, gallery = direction_embeddings(direction, tables, dataset, model)
        shown = np.unique(np.linspace(0, len(query) - 1, EXAMPLES).astype(int))
        best, _ = top_k(query[shown], gallery, min(EXAMPLE_DEPTH, len(gallery)))
        places = labels.place_ids(direction.queries.image_ids)[shown]
        found = labels.place_ids(direction.gallery.image_ids)[best.numpy()]
        asked, answers = direction.queries.uris, direction.gallery.uris
        uris = [asked[row] for row in shown] + [answers[row] for row in best.flatten().tolist()]
        tiles = load_tiles({uri: uri for uri in uris})
        sheets[direction.name] = retrieval_sheet(
            [tiles[asked[row]] for row in shown],
            [[tiles[answers[row]] for row in rows] for rows in best.tolist()],
            [[bool(hit) for hit in hits] for hits in found == places[:, None]],
        )
    return sheets


def load_tiles(uris: Mapping[str, str], side: int = SIDE_PX) -> dict[str, Image.Image]:
    """Each name's image as an RGB square of `side` px, padded with white; grey where it cannot be read.

    A picture is no reason to fail a finished training.
    """
    with ThreadPoolExecutor(READERS) as pool:
        tiles = pool.map(lambda uri: _tile(uri, side), uris.values())
        return dict(zip(uris, tiles, strict=True))


def _tile(uri: str, side: int) -> Image.Image:
    try:
        image = decode(read_bytes(uri), side)
    except (BrokenImageError, OSError):
        image = Image.new("RGB", (side, side), (128, 128, 128))
    return ImageOps.pad(image, (side, side), color=(255, 255, 255))
