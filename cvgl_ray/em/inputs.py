"""Two views' features before a training: what is refused, and what is doubtful."""

import numpy as np

from cvgl_ray.em.judge import FEWEST
from cvgl_ray.errors import InputError

REPEATED = 0.2  # share of a view's images with the feature of another one, from which on it is said
UNEVEN = 100  # images of one view per image of the other, likewise
CHUNK = 65_536  # rows


def check_views(query: np.ndarray, reference: np.ndarray) -> None:
    """Raise InputError, which names the argument, unless both can be trained on.

    query [Nq, D], reference [Nr, D]: finite numbers, at least two rows each, one D.
    """
    for name, rows in (("queries", query), ("references", reference)):
        check_rows(name, rows)
        if len(rows) < 2:
            raise InputError(f"{name} has {len(rows)} row; training needs at least two of each view")
    check_same_columns(query, reference)


def check_same_columns(query: np.ndarray, reference: np.ndarray) -> None:
    """Raise InputError unless the two views' features [n, D] have one D."""
    if query.shape[1] != reference.shape[1]:
        raise InputError(
            f"queries has {query.shape[1]} columns and references {reference.shape[1]}; both views' features "
            "must come from one model"
        )


def check_rows(name: str, rows: np.ndarray) -> None:
    """Raise InputError, which names the argument, unless `rows` [n, D] are numbers, finite and not empty."""
    if rows.ndim != 2 or 0 in rows.shape:
        raise InputError(
            f"{name} has shape {list(rows.shape)}; give a matrix [images, dimensions], not empty"
        )
    if not (np.issubdtype(rows.dtype, np.floating) or np.issubdtype(rows.dtype, np.integer)):
        raise InputError(f"{name} holds {rows.dtype}; give numbers, one row per image")
    broken = sum(
        int((~np.isfinite(rows[start : start + CHUNK])).any(axis=1).sum())
        for start in range(0, len(rows), CHUNK)
    )
    if broken:
        raise InputError(
            f"{name} has {broken} of {len(rows)} rows with NaN or infinity; leave these images out"
        )


def doubts(query: np.ndarray, reference: np.ndarray) -> list[str]:
    """What a person should know of two views before trusting what is learned from them: sentences.

    query [Nq], reference [Nr]: a digest of each image's feature, see `features.views.row_digests`.
    """
    found = []
    views = (("query", query, len(reference)), ("reference", reference, len(query)))
    for name, rows, others in views:
        if len(rows) < FEWEST:
            found.append(
                f"there are {len(rows)} {name} images; with fewer than {FEWEST} little can be learned, and "
                "nothing be said of how well"
            )
        if len(rows) > UNEVEN * others:
            found.append(
                f"there are {len(rows)} {name} images against {others} of the other view; those "
                "without a partner there may teach wrong pairs"
            )
        repeated = len(rows) - len(np.unique(rows))
        if repeated > REPEATED * len(rows):
            found.append(
                f"{repeated} of {len(rows)} {name} images have the same feature as another one; are they "
                "copies, or black?"
            )
    return found
