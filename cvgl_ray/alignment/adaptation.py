"""EM of a flight on a map: where the sure photos lie teaches how photos and map differ, and again.

The E-step searches all photos and says how sure each is; the M-step fits the cells' attenuation, in closed
form, to the pairs of cells that lie on each other under the poses of the sure ones.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from cvgl_ray.alignment.flight import SURE, Found, decide, learn
from cvgl_ray.alignment.photo_adapter import CHANNELS, CellAdapter, frozen_adapter
from cvgl_ray.alignment.photo_search import Peaks
from cvgl_ray.alignment.scales import Scale

LEAST_PAIRS = 500  # cells; fewer teach nothing
# Share of the photos which, sure, teach all there is to learn; where fewer are, their peaks are fitted.
ENOUGH = 0.5


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
    verify: Callable[[CellAdapter, Found], Found] | None = None,
    rounds: int = 3,
    channels: int = CHANNELS,
    adapter: CellAdapter | None = None,
) -> Adapted:
    """Search, learn, search again, until enough photos have taught.

    search: flight.shard_peaks over all shards, merged; pairs: flight.shard_pairs, likewise. samples: see
    flight.cell_samples. verify: see verify.with_fits; asked where less than ENOUGH of the photos are sure.
    rounds: at most so many; 0 leaves the model frozen. adapter: of another flight, to begin with.
    """
    if adapter is None:
        adapter = frozen_adapter({name: rows.mean(dim=0) for name, rows in samples}, samples, channels)
    found = [decide(search(adapter), scales)]
    for _ in range(rounds):
        if verify is not None and share_sure(found[-1]) < ENOUGH:
            found[-1] = verify(adapter, found[-1])
        enough = share_sure(found[-1]) >= ENOUGH
        differences = pairs(adapter, found[-1])
        if len(differences) < LEAST_PAIRS:
            break
        adapter = learn(adapter, differences, samples, channels)
        found.append(decide(search(adapter), scales))
        if enough:
            break
    return Adapted(adapter, found)


def share_sure(found: Found) -> float:
    """The share of photos that teach."""
    return float((found.confidence >= SURE).float().mean())
