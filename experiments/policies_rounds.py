"""Rounds of EM with what was tried beside the product: scores, matches, weights, targets, teachers, votes.

What the product has is taken from it; a function here is something it does not have, with its source.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from cvgl_ray.config import Config
from cvgl_ray.em.attenuation import Attenuation
from cvgl_ray.em.build import build_adapter
from cvgl_ray.em.matching import accepted
from cvgl_ray.em.neighbourhood import csls, neighbourhood_scores, sinkhorn, view_graph
from cvgl_ray.em.siblings import siblings
from cvgl_ray.features.views import QUERY, REFERENCE, view_mean
from cvgl_ray.search.exact import Nearest

Scores = Callable[[torch.Tensor], torch.Tensor]  # cosines [nq, nr] -> scores [nq, nr]
Pair = tuple[torch.Tensor, torch.Tensor]  # something of the query view and of the reference view
DUSTBIN_ITERATIONS = 50


def _csls(cosines: torch.Tensor) -> torch.Tensor:
    return csls(cosines, 5)


@dataclass(frozen=True)
class Policy:
    """How the rounds are done, where the product has no word for it.

    neighbourhood: weight of the neighbours' matches
    reciprocal: a pair counts where its query is among so many times the queries that its reference has room
        for; 0: every query has its best reference
    shares: of the matched queries, those of the widest margin that count in the first and the last round
    confidence: a pair weighs as its margin
    temperature: above 0 the target is the mean of all references, weighted by the softmax of the scores at so
        many standard deviations
    momentum: of a teacher that matches (Tarvainen and Valpola, NeurIPS 2017)
    siblings, vote: weight of pairs within a view, and of the scores of a row's sibling in its own
    everywhere: siblings are looked for though the views tell of one image a place
    """

    neighbourhood: float
    shares: tuple[float, float]
    rounds: int
    siblings: float
    scores: Scores = _csls
    reciprocal: int = 1
    confidence: bool = False
    temperature: float = 0.0
    momentum: float = 0.0
    vote: float = 0.0
    everywhere: bool = False


def cosine(cosines: torch.Tensor) -> torch.Tensor:
    """The cosines themselves."""
    return cosines


def inverted_softmax(cosines: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log of the softmax over the references times that over the queries (after Smith et al., ICLR 2017).

    temperature: in standard deviations of the cosines, as in the two functions below.
    """
    logits = cosines / (temperature * cosines.std())
    return 2 * logits - logits.logsumexp(dim=0, keepdim=True) - logits.logsumexp(dim=1, keepdim=True)


def balanced(cosines: torch.Tensor, temperature: float) -> torch.Tensor:
    """Log of the assignment that uses all references alike (Sinkhorn's scaling; Cuturi, NeurIPS 2013)."""
    return sinkhorn((cosines / (temperature * cosines.std())).double(), 20).log().float()


def with_dustbin(cosines: torch.Tensor, temperature: float) -> torch.Tensor:
    """The same with a further row and column for whom nobody fits (Sarlin et al., CVPR 2020).

    Their score, learned there, is here the quarter of the queries' best cosines.
    """
    queries, references = cosines.shape
    room = max(1.0, queries / references)
    waste = torch.quantile(cosines.max(dim=1).values, 0.25)
    logits = F.pad(cosines, (0, 1, 0, 1), value=float(waste)) / (temperature * cosines.std())
    rows = torch.tensor([1.0] * queries + [room * references]).log()[:, None]
    columns = torch.tensor([room] * references + [float(queries)]).log()
    for _ in range(DUSTBIN_ITERATIONS):
        logits = logits - logits.logsumexp(dim=0, keepdim=True) + columns
        logits = logits - logits.logsumexp(dim=1, keepdim=True) + rows
    return logits[:-1, :-1]


@torch.no_grad()
def adapt(query: np.ndarray, reference: np.ndarray, config: Config, policy: Policy) -> Attenuation:
    """The closed-form adapter after the policy's rounds on features [nq, D] and [nr, D] float32."""
    centre = torch.from_numpy(np.stack([view_mean(query), view_mean(reference)]))
    adapter = build_adapter(config, query.shape[1], centre)
    assert isinstance(adapter, Attenuation)
    views = (
        adapter.normalise(torch.from_numpy(query), QUERY),
        adapter.normalise(torch.from_numpy(reference), REFERENCE),
    )
    graphs = view_graph(views[0].numpy()), view_graph(views[1].numpy())
    kin = _kin(views[0], len(reference), policy), _kin(views[1], len(query), policy)
    within = [
        policy.siblings**0.5 * (rows[one] - rows[other])
        for rows, (one, other) in zip(views, kin, strict=True)
    ]
    voices = _voices(len(query), kin[0], policy.vote), _voices(len(reference), kin[1], policy.vote)
    teacher = basis = torch.eye(query.shape[1])
    for number in range(policy.rounds):
        embedded = [F.normalize(rows @ teacher, dim=-1) for rows in views]
        scores = voices[0] @ policy.scores(embedded[0] @ embedded[1].T) @ voices[1].T
        if policy.neighbourhood:
            scores = neighbourhood_scores(scores, graphs, policy.neighbourhood)
        progress = number / max(1, policy.rounds - 1)
        share = policy.shares[0] + (policy.shares[1] - policy.shares[0]) * progress
        across = _differences(views, scores, share, policy)
        adapter.fit(torch.cat([across, *within]), config.adapter.shrinkage)
        student = adapter.encode(basis)
        teacher = student if number == 0 else torch.lerp(student, teacher, policy.momentum)
    return adapter


def _kin(rows: torch.Tensor, others: int, policy: Policy) -> np.ndarray:
    """Row ids [2, p] of siblings within a view, where it has several images a place."""
    return siblings(lambda ids: rows[ids], len(rows), 1 if policy.everywhere else others).T


def _voices(count: int, kin: np.ndarray, vote: float) -> torch.Tensor:
    """Whose scores make a row's [count, count]: its own, and with weight `vote` its sibling's."""
    voices = torch.eye(count)
    voices[kin[0], kin[1]] = voices[kin[1], kin[0]] = vote
    return voices / voices.sum(dim=1, keepdim=True)


def _differences(views: Pair, scores: torch.Tensor, share: float, policy: Policy) -> torch.Tensor:
    """Differences [n, D] of the queries that count and their targets, weighted."""
    best = scores.topk(2, dim=1)
    near = Nearest(best.indices.numpy(), best.values.numpy())
    keep, margin = np.ones(len(scores), dtype=bool), near.lead()
    if policy.reciprocal:
        room = max(1, round(scores.shape[0] / scores.shape[1]))
        back = scores.T.topk(min(policy.reciprocal * room, len(scores)), dim=1).indices.numpy()
        keep = accepted(near.ids[:, 0], back)
    keep &= margin >= np.quantile(margin[keep], 1 - share)
    targets = views[1][near.ids[keep, 0]]
    if policy.temperature:
        kept = scores[torch.from_numpy(keep)]
        targets = (kept / (policy.temperature * scores.std())).softmax(dim=1) @ views[1]
    differences = views[0][torch.from_numpy(keep)] - targets
    if policy.confidence:
        differences *= torch.from_numpy(margin[keep] / margin[keep].mean()).sqrt()[:, None]
    return differences


def policies(config: Config) -> dict[str, Policy]:
    """The rows of the table: the configured policy first, then one that does something else in its place."""
    base = Policy(
        neighbourhood=config.estep.neighbourhood,
        shares=(config.estep.first_share, 1.0),
        rounds=config.mstep.rounds,
        siblings=config.adapter.siblings,
    )
    return {
        "the product's (rounds of this file)": base,
        "no round: centred features": replace(base, rounds=0),
        "cosine": replace(base, scores=cosine),
        **{
            f"inverted softmax, {t}": replace(base, scores=partial(inverted_softmax, temperature=t))
            for t in (0.1, 0.3, 1.0)
        },
        **{f"Sinkhorn, {t}": replace(base, scores=partial(balanced, temperature=t)) for t in (0.1, 0.3, 1.0)},
        "Sinkhorn with dustbin, 0.3": replace(base, scores=partial(with_dustbin, temperature=0.3)),
        "CSLS, alone": replace(base, neighbourhood=0),
        "cosine, alone": replace(base, scores=cosine, neighbourhood=0),
        "inverted softmax, 0.3, alone": replace(
            base, scores=partial(inverted_softmax, temperature=0.3), neighbourhood=0
        ),
        "Sinkhorn, 0.3, alone": replace(base, scores=partial(balanced, temperature=0.3), neighbourhood=0),
        "Sinkhorn with dustbin, 0.3, alone": replace(
            base, scores=partial(with_dustbin, temperature=0.3), neighbourhood=0
        ),
        "argmax": replace(base, reciprocal=0),
        "2-reciprocal": replace(base, reciprocal=2),
        "3-reciprocal": replace(base, reciprocal=3),
        "all matched from the first round on": replace(base, shares=(1.0, 1.0)),
        "widest 70 % in every round": replace(base, shares=(0.7, 0.7)),
        "first the widest 30 %": replace(base, shares=(0.3, 1.0)),
        "confidence weights": replace(base, confidence=True),
        "soft targets, 0.1": replace(base, temperature=0.1),
        "soft targets, 0.3": replace(base, temperature=0.3),
        "6 rounds": replace(base, rounds=6),
        "teacher, momentum 0.5": replace(base, momentum=0.5),
        "teacher, momentum 0.5, 6 rounds": replace(base, rounds=6, momentum=0.5),
        "no siblings": replace(base, siblings=0.0),
        "siblings weigh 1": replace(base, siblings=1.0),
        "siblings in every view": replace(base, everywhere=True),
        "a sibling's vote": replace(base, vote=1.0),
        "a sibling's vote in every view": replace(base, vote=1.0, everywhere=True),
    }
