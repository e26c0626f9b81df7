"""Two gloo processes against one: the same loss, gradient, statistics and training."""

import datetime
import multiprocessing
import warnings

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from cvgl_ray.config import load_config
from cvgl_ray.em import collective
from cvgl_ray.em.adapters import LinearAdapter
from cvgl_ray.em.batches import Batch, local_rows
from cvgl_ray.em.build import build_learner
from cvgl_ray.em.gradient import GradientLearner
from cvgl_ray.em.objective import Objective
from cvgl_ray.em.rounds import EStepRows, frozen_graphs, match_rows, run_rounds

WORLD, DIMENSION, LIMIT_S = 2, 16, 120

# name: (of_query, of_reference)
BATCHES = {
    "even": ([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5]),
    "odd": ([3, 1, 4, 0, 2], [3, 1, 4, 0, 2]),
    "siblings": ([0, 1, 0, 2, 2, 2, 1], [2, 6, 5]),
    "unlabelled": ([-1, 2, -1, 0, -1, -1, 5, -1, 1], [3, 8, 1, -1, -1, 6, -1]),
    "one_way": ([1, 1, 2, 0, 2, 4, 4], [4, 4, 1, 0, 6]),
    "one_reference": ([0, 0, 0], [1]),
}
# name: (arguments of the adapter, arguments of the objective)
MODELS = {
    "view": ({"norm": "view"}, {}),
    "view_orthogonal": ({"norm": "view"}, {"orthogonality_weight": 0.3, "reconstruction_weight": 0.0}),
    "batch": ({"norm": "batch", "width": 20}, {"reconstruction_kind": "l1"}),
    "batch_residual": ({"norm": "batch", "residual": True}, {"learn_temperature": False}),
}
LINEAR = ("adapter.kind=linear", "mstep.steps_per_round=3", "mstep.batch_size=7", "mstep.learning_rate=1e-3")
TRAININGS = {
    "gradient": LINEAR,
    "random_rows": (
        *LINEAR,
        "adapter.norm=batch",
        "estep.neighbourhood=0",
        "estep.rows=21",
        "estep.scores=cosine",
        "estep.threshold=0.1",
        "estep.first_share=1.0",
        "mstep.steps_per_round=1",
    ),
    "closed_form": (),
}


def step(model, of_query, of_reference):
    """One forward and backward of this process's share of a batch: its loss, gradients and buffers."""
    torch.manual_seed(0)
    adapter_arguments, objective_arguments = MODELS[model]
    centre = 0.1 * torch.randn(2, DIMENSION)
    adapter = LinearAdapter(DIMENSION, init="random", centre=centre, **adapter_arguments)
    objective = Objective(adapter, **objective_arguments)
    module = objective
    if dist.is_initialized():
        module = DistributedDataParallel(objective, forward_sync_buffers=False)
    rng = np.random.default_rng(1)
    features = [rng.normal(size=(40, DIMENSION)).astype(np.float32) + 0.5 for _ in range(2)]
    rows = [rng.permutation(40)[: len(side)] for side in (of_query, of_reference)]
    arguments = []
    for matrix, side in zip(features, rows, strict=True):
        own, valid = local_rows(side, collective.rank(), collective.world_size())
        arguments += [torch.from_numpy(matrix[own]), torch.from_numpy(valid)]
    terms = module(*arguments, Batch(*rows, np.array(of_query), np.array(of_reference)))
    terms["loss"].backward()
    gradients = {n: p.grad for n, p in objective.named_parameters() if p.requires_grad}
    return {
        "loss": terms["loss"].detach(),
        "gradients": gradients,
        "buffers": dict(objective.named_buffers()),
    }


def training(overrides):
    """The rounds' losses and pseudo-labels, and the adapter that they leave."""
    learning = load_config(None, overrides).learning
    rng = np.random.default_rng(2)
    latent = rng.normal(size=(31, DIMENSION))
    query, reference = (
        (latent + 0.3 * rng.normal(size=latent.shape) + shift).astype(np.float32) for shift in (0, 0.4)
    )
    learner = build_learner(learning, DIMENSION)
    graphs = frozen_graphs(query, reference, learner.adapter) if learning.estep.neighbourhood else None
    if dist.is_initialized() and isinstance(learner, GradientLearner):
        learner.parallel = DistributedDataParallel(learner.objective, forward_sync_buffers=False)

    def matcher(_round, rows: EStepRows):
        shares = [rows]
        if dist.is_initialized():
            shares = [None] * collective.world_size()
            dist.all_gather_object(shares, rows)
        parts = [np.concatenate([getattr(s, view) for s in shares]) for view in ("query", "reference")]
        return match_rows(*parts, rows, learning.estep, graphs)

    rounds = list(run_rounds(learner, query, reference, learning, matcher=matcher))
    numbers = [{k: v for k, v in done.scalars.items() if not k.startswith("time/")} for done in rounds]
    return {
        "scalars": {key: torch.tensor([each[key] for each in numbers]) for key in numbers[0]},
        "labels": [torch.tensor(done.labels.of_query) for done in rounds],
        "adapter": learner.adapter.state_dict(),
    }


def everything():
    steps = {(model, name): step(model, *BATCHES[name]) for model in MODELS for name in BATCHES}
    return {"steps": steps, "trainings": {name: training(TRAININGS[name]) for name in TRAININGS}}


def worker(rank, folder):
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    timeout = datetime.timedelta(seconds=LIMIT_S)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD, timeout=timeout
    )
    results = everything()
    with_gradient = collective.gather
    collective.gather = lambda rows: with_gradient(rows.detach())
    results["detached"] = step("view", *BATCHES["odd"])
    torch.save(results, f"{folder}/{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two processes computed; started once for all tests."""
    folder = tmp_path_factory.mktemp("gloo")
    # Whose children need not import all of this once more.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "torch._dynamo", "cvgl_ray.em.build", "cvgl_ray.search.compiled"]
    )
    processes = [
        context.Process(target=worker, args=(rank, str(folder)), daemon=True) for rank in range(WORLD)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join(LIMIT_S)
        assert [process.exitcode for process in processes] == [0] * WORLD
    finally:
        for process in processes:
            if process.is_alive():
                process.kill()
    return [torch.load(folder / f"{rank}.pt") for rank in range(WORLD)]


@pytest.fixture(scope="module")
def one():
    return everything()


def distance(values, expected):
    """Relative distance of two named sets of tensors, as vectors."""
    assert values.keys() == expected.keys()
    flat = [torch.cat([side[name].double().flatten() for name in expected]) for side in (values, expected)]
    return ((flat[0] - flat[1]).norm() / flat[1].norm()).item()


@pytest.mark.parametrize("name", BATCHES)
@pytest.mark.parametrize("model", MODELS)
def test_two_workers_have_the_loss_and_gradient_of_one(one, two, model, name):
    expected = one["steps"][model, name]
    ranks = [results["steps"][model, name] for results in two]
    loss = sum(rank["loss"] for rank in ranks) / WORLD
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=0)
    for rank in ranks:
        assert distance(rank["gradients"], expected["gradients"]) < 1e-5
        assert distance(rank["buffers"], expected["buffers"]) < 1e-5


def test_candidates_gathered_without_gradient_would_be_seen(one, two):
    expected = one["steps"]["view", "odd"]
    detached = [results["detached"] for results in two]
    loss = sum(rank["loss"] for rank in detached) / WORLD
    torch.testing.assert_close(loss, expected["loss"], rtol=1e-5, atol=0)
    assert distance(detached[0]["gradients"], expected["gradients"]) > 1e-2


@pytest.mark.parametrize("name", TRAININGS)
def test_two_workers_train_the_adapter_of_one(one, two, name):
    expected = one["trainings"][name]
    for rank in (results["trainings"][name] for results in two):
        for labels, alone in zip(rank["labels"], expected["labels"], strict=True):
            assert torch.equal(labels, alone)
        torch.testing.assert_close(rank["scalars"], expected["scalars"], rtol=1e-4, atol=1e-6)
        if name == "closed_form":
            assert distance(rank["adapter"], expected["adapter"]) == 0
        # Adam makes whole steps of the rounding noise in a bias that BatchNorm cancels.
        assert distance(rank["adapter"], expected["adapter"]) < 5e-3
    assert distance(*(results["trainings"][name]["adapter"] for results in two)) == 0
