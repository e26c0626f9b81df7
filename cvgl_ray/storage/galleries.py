"""What localising keeps of a gallery that it has searched: its side of the scores, for the next query."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from safetensors import SafetensorError

from cvgl_ray.storage.files import write_atomically

KEPT = 3  # galleries per folder; the one that was searched longest ago makes room


class Gallery(NamedTuple):
    """rows [G]: of the gallery's images, those with a feature; side [G, V] float32: see Retriever.sides."""

    rows: list[int]
    side: torch.Tensor


def gallery_key(model: Any, image_ids: Sequence[str], digests: Sequence[str]) -> str:
    """Names what a gallery's side depends on: the model (JSON values) and all images with their content."""
    text = json.dumps([model, *zip(image_ids, digests, strict=True)], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def rounded(side: torch.Tensor) -> torch.Tensor:
    """The side as it is kept, in half precision, so that the first query is answered as the next ones are.

    But for the last column, which may be a hubness: there a thousandth counts.
    """
    return torch.cat([side[:, :-1].half().float(), side[:, -1:]], dim=1)


def load_gallery(folder: Path, key: str) -> Gallery | None:
    """What is kept under that key; None where there is nothing, or not all of it can be read."""
    path = folder / f"{key}.safetensors"
    try:
        found = safetensors.torch.load_file(path)
        path.touch()
    except (OSError, SafetensorError):
        return None
    return Gallery(found["rows"].tolist(), torch.cat([found["most"].float(), found["last"]], dim=1))


def keep_gallery(folder: Path, key: str, gallery: Gallery) -> None:
    """Keep a gallery; a folder that cannot be written, or is full, keeps none."""
    rows, side = torch.tensor(gallery.rows), gallery.side
    arrays = {"rows": rows, "most": side[:, :-1].half().contiguous(), "last": side[:, -1:].contiguous()}
    with suppress(OSError, SafetensorError):
        write_atomically(
            folder / f"{key}.safetensors", lambda temporary: safetensors.torch.save_file(arrays, temporary)
        )
        by_age = sorted(folder.glob("*.safetensors"), key=lambda path: -path.stat().st_mtime_ns)
        for path in by_age[KEPT:]:
            path.unlink()
