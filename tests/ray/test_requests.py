"""What a cluster can never give is refused at once; what an autoscaler may add is waited for."""

import os
import time
from pathlib import Path

import pytest
import yaml
from tiny import configured

from cvgl_ray.config import load_config
from cvgl_ray.distributed import resources
from cvgl_ray.distributed.resources import Need, check_needs, check_needs_here, extraction_need, node_cores
from cvgl_ray.errors import InputError
from cvgl_ray.stages import train_stage


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("run.workers=8", r"run.workers = 8 asks for 8 x \(1 CPU\), and the cluster has room for 2"),
        (
            "run.gpu=true",
            r"run.workers = 1 with run.gpu = true asks for 1 x \(1 CPU \+ 1 GPU\), .* room for 0",
        ),
        ("features.actors=3", r"features.actors = 3 asks for 3 x \(1 CPU\), .* room for 2"),
    ],
)
def test_what_is_never_there_is_refused_before_the_extraction(
    asked: str, found: str, places: Path, tmp_path: Path
) -> None:
    began = time.monotonic()
    with pytest.raises(InputError, match=found + r" \(2 CPUs and 0 GPUs on 1 node\)"):
        train_stage(configured(places, asked), tmp_path)
    assert time.monotonic() - began < 15
    assert not list(tmp_path.rglob("part-*"))


def test_a_cluster_to_be_started_here_has_what_this_machine_has() -> None:
    cores = os.cpu_count() or 1
    check_needs_here([Need("run.workers", cores, {"CPU": 1.0})])
    with pytest.raises(InputError, match=f"and this machine has room for {cores} "):
        check_needs_here([Need("run.workers", cores + 1, {"CPU": 1.0})])


def test_fewer_workers_than_asked_for_are_enough_where_the_run_says_so(places: Path) -> None:
    settings = load_config(None, ("run.workers=8", "run.min_workers=2"))
    check_needs([resources.training_need(settings.run)])


def test_an_autoscaler_is_given_the_time_to_add_nodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    launched = tmp_path / "ray_bootstrap_config.yaml"
    types = {
        "head": {"resources": {"CPU": 0}},
        "gpu": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 4},
    }
    launched.write_text(
        yaml.safe_dump({"available_node_types": types, "head_node_type": "head", "max_workers": 8})
    )
    monkeypatch.setattr(resources, "LAUNCHED", launched)
    workers = Need("run.workers = 4", 4, {"CPU": 1.0, "GPU": 1.0})
    check_needs([workers, extraction_need(4, gpu=True), extraction_need(34, gpu=False)])
    for never in (Need("run.workers = 5", 5, workers.each), Need("run.workers = 1", 1, {"GPU": 2.0})):
        with pytest.raises(InputError, match="even when all nodes are added that its autoscaler may add"):
            check_needs([never])
    monkeypatch.undo()
    monkeypatch.setenv("KUBERAY_GEN_RAY_START_CMD", "ray start --head --no-monitor --num-cpus=0")
    check_needs([workers])  # the types of nodes are not known here
    monkeypatch.undo()
    with pytest.raises(InputError):
        check_needs([workers])


def test_threads_are_those_of_the_node() -> None:
    assert node_cores() == 2
