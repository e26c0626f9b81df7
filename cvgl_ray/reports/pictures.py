"""Pictures for people: what was retrieved, and thumbnails for the projector."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image, ImageOps

from cvgl_ray.evaluation.protocols import Retrieved
from cvgl_ray.features.pixels import BrokenImageError, read_picture
from cvgl_ray.reports.tables import retrieval_sheet

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


def final_sheet(examples: Sequence[Retrieved]) -> np.ndarray:
    """A picture [H, W, 3] uint8 of a few test queries, each followed by its best references.

    The right references have a green frame, the others a red one.
    """
    uris = [uri for example in examples for uri in (example.query, *example.references)]
    tiles = load_tiles({uri: uri for uri in uris})
    return retrieval_sheet(
        [tiles[example.query] for example in examples],
        [[tiles[uri] for uri in example.references] for example in examples],
        [example.right for example in examples],
    )


def load_tiles(uris: Mapping[str, str], side: int = SIDE_PX) -> dict[str, Image.Image]:
    """Each name's image as an RGB square of `side` px, padded with white; grey where it cannot be read.

    A picture is no reason to fail a finished training.
    """
    with ThreadPoolExecutor(READERS) as pool:
        tiles = pool.map(lambda uri: _tile(uri, side), uris.values())
        return dict(zip(uris, tiles, strict=True))


def _tile(uri: str, side: int) -> Image.Image:
    try:
        image = read_picture(uri, side)
    except (BrokenImageError, OSError):
        image = Image.new("RGB", (side, side), (128, 128, 128))
    return ImageOps.pad(image, (side, side), color=(255, 255, 255))
