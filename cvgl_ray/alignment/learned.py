"""What an alignment has learned, as named tensors: for checkpoints, for bundles, and to go on from."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np
import torch

from cvgl_ray.alignment.aligner import Aligner
from cvgl_ray.alignment.combine import Combination
from cvgl_ray.alignment.poses import Found
from cvgl_ray.alignment.prior import PosePrior
from cvgl_ray.em.adapters import Attenuation, LinearAdapter, ViewCentred

Learned = dict[str, torch.Tensor]  # "adapter.*", "prior.*", "combination.*" and, of the last pairs, "pairs.*"


def learned_of(aligner: Aligner) -> Learned:
    """The adapter, the prior, how scores are combined, and the pairs and poses that they were fitted to."""
    state = {f"adapter.{name}": value.clone() for name, value in aligner.adapter.state_dict().items()}
    state |= _tensors("prior", aligner.prior)
    if aligner.combination is not None:
        state |= _tensors("combination", aligner.combination)
    if aligner.pairs is not None:
        queries, references, poses = aligner.pairs
        state |= {"pairs.query": torch.from_numpy(queries), "pairs.reference": torch.from_numpy(references)}
        state |= _tensors("pairs", poses)
    return state


def take_over(aligner: Aligner, state: Mapping[str, torch.Tensor]) -> None:
    """Let an aligner go on from what another one has learned, of the same variants and channels."""
    aligner.adapter = adapter_of(state)
    aligner.prior = prior_of(state)
    aligner.combination = combination_of(state)
    aligner.pairs = pairs_of(state)
    aligner.learned = aligner.pairs is not None


def adapter_of(state: Mapping[str, torch.Tensor]) -> ViewCentred:
    """The cells' adapter, of the kind that learned."""
    named = {name.removeprefix("adapter."): value for name, value in state.items() if "adapter." in name}
    adapter: ViewCentred
    if "encoder.weight" in named:
        adapter = LinearAdapter(named["centre"].shape[1])
    else:
        rank, channels = named["directions"].shape
        adapter = Attenuation(channels, rank)
    adapter.load_state_dict(named)
    return adapter.eval()


def prior_of(state: Mapping[str, torch.Tensor]) -> PosePrior:
    """What poses are worth before one looks."""
    found: PosePrior = _made(PosePrior, "prior", state)
    return found


def combination_of(state: Mapping[str, torch.Tensor]) -> Combination | None:
    """How the scores of cells and of vectors are combined, in this order; None where none was learned."""
    if "combination.gain" not in state:
        return None
    found: Combination = _made(Combination, "combination", state)
    return found


def pairs_of(state: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray, Found] | None:
    """Rows [p] of the queries and references of the last pseudo-labels that were aligned, and their poses."""
    if "pairs.query" not in state:
        return None
    queries, references = (state[f"pairs.{name}"].numpy() for name in ("query", "reference"))
    return queries, references, _made(Found, "pairs", state)


def _tensors(prefix: str, made: object) -> Learned:
    return {
        f"{prefix}.{field.name}": torch.as_tensor(np.asarray(getattr(made, field.name)).copy())
        for field in fields(made)  # type: ignore[arg-type]
    }


def _made(kind: type, prefix: str, state: Mapping[str, torch.Tensor]) -> Any:
    values = {field.name: state[f"{prefix}.{field.name}"].numpy() for field in fields(kind)}
    return kind(**{name: value if value.ndim else value.item() for name, value in values.items()})
