"""EM of a flight on a map: where the sure photos lie teaches how photos and map differ, and again.

The E-step searches all photos and says how sure each is; the M-step fits the cells' attenuation, in closed
form, to the pairs of cells that lie on each other under the poses of the sure ones.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from cvgl_ray.alignment.flight import SURE, Found, decide, evidence, learn
from cvgl_ray.alignment.photo_adapter import CHANNELS, CellAdapter, frozen_adapter
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.scales import Scale

LEAST_PAIRS = 500  # cells; fewer teach nothing


class Adapted(NamedTuple):
    """The last adapter and what it finds; `history`: sure photos and mean lead per round, frozen first."""

    adapter: CellAdapter
    found: Found
    history: list[dict[str, float]]


def adapt(
    search: Callable[[CellAdapter], Sequence[Peaks]],
    pairs: Callable[[CellAdapter, Found], torch.Tensor],
    samples: Sequence[tuple[str, torch.Tensor]],
    scales: Sequence[Scale],
    headings: int,
    *,
    rounds: int = 1,
    channels: int = CHANNELS,
    adapter: CellAdapter | None = None,
) -> Adapted:
    """Search, learn, search again.

    search: flight.shard_peaks over all shards, merged; pairs: flight.shard_pairs, likewise. samples: see
    flight.cell_samples. rounds: 0 leaves the model frozen. adapter: of another flight, to begin with.
    """
    means = {name: rows.mean(dim=0) for name, rows in samples}
    if adapter is None:
        adapter = frozen_adapter(means, samples, channels)
    found = _decided(search(adapter), scales, headings)
    history = [_figures(found)]
    for _ in range(rounds):
        differences = pairs(adapter, found)
        if len(differences) < LEAST_PAIRS:
            break
        adapter = learn(adapter, differences, samples, channels)
        found = _decided(search(adapter), scales, headings)
        history.append(_figures(found))
    return Adapted(adapter, found, history)


def _decided(by_scale: Sequence[Peaks], scales: Sequence[Scale], headings: int) -> Found:
    """Decided twice: what the sure photos have in common helps the others."""
    alone = decide(by_scale, scales)
    common = evidence(alone, len(scales), headings)
    return alone if common is None else decide(by_scale, scales, common)


def _figures(found: Found) -> dict[str, float]:
    return {
        "sure": int((found.confidence >= SURE).sum()),
        "lead": float(found.lead.mean()),
        "chance": found.chance,
    }
