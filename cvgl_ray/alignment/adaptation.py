"""EM of a flight on a map: where the sure photos lie teaches how photos and map differ, and again.

The E-step searches all photos and says how sure each is; the M-step fits the cells' attenuation, in closed
form, to the pairs of cells that lie on each other under the poses of the sure ones.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from cvgl_ray.alignment.flight import Found, decide, learn
from cvgl_ray.alignment.photo_adapter import CHANNELS, CellAdapter, frozen_adapter
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.scales import Scale

LEAST_PAIRS = 500  # cells; fewer teach nothing


class Adapted(NamedTuple):
    """The last adapter, and what was found round by round, the frozen model's first."""

    adapter: CellAdapter
    rounds: list[Found]

    @property
    def found(self) -> Found:
        """What the last adapter finds."""
        return self.rounds[-1]


def adapt(
    search: Callable[[CellAdapter], Sequence[Peaks]],
    pairs: Callable[[CellAdapter, Found], torch.Tensor],
    samples: Sequence[tuple[str, torch.Tensor]],
    scales: Sequence[Scale],
    *,
    rounds: int = 1,
    channels: int = CHANNELS,
    adapter: CellAdapter | None = None,
) -> Adapted:
    """Search, learn, search again.

    search: flight.shard_peaks over all shards, merged; pairs: flight.shard_pairs, likewise. samples: see
    flight.cell_samples. rounds: 0 leaves the model frozen. adapter: of another flight, to begin with.
    """
    if adapter is None:
        adapter = frozen_adapter({name: rows.mean(dim=0) for name, rows in samples}, samples, channels)
    found = [decide(search(adapter), scales)]
    for _ in range(rounds):
        differences = pairs(adapter, found[-1])
        if len(differences) < LEAST_PAIRS:
            break
        adapter = learn(adapter, differences, samples, channels)
        found.append(decide(search(adapter), scales))
    return Adapted(adapter, found)
