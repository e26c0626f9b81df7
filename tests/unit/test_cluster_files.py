"""The files of cluster/ against the schemas of who reads them, and what none of them may do."""

import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
LAUNCHER = ("aws.yaml", "gcp.yaml", "onprem.yaml")
KUBERAY = ("raycluster.yaml", "rayjob.yaml")

# Fields of KubeRay's ray.io/v1 types (ray-operator/apis/ray/v1/*_types.go) that manifests for 1.5.1 and later
# may use. INNER says which fields hold another of these types; the others are Kubernetes' or Ray's own.
FIELDS = {
    "RayCluster": "apiVersion kind metadata spec",
    "RayJob": "apiVersion kind metadata spec",
    "RayClusterSpec": "authOptions autoscalerOptions enableInTreeAutoscaling gcsFaultToleranceOptions "
    "headGroupSpec headServiceAnnotations managedBy rayVersion suspend workerGroupSpecs",
    "AuthOptions": "mode",
    "AutoscalerOptions": "env envFrom idleTimeoutSeconds image imagePullPolicy resources securityContext "
    "upscalingMode version volumeMounts",
    "HeadGroupSpec": "enableIngress headService labels rayStartParams resources serviceType template",
    "WorkerGroupSpec": "groupName idleTimeoutSeconds labels maxReplicas minReplicas numOfHosts "
    "rayStartParams replicas resources scaleStrategy suspend template",
    "RayJobSpec": "activeDeadlineSeconds backoffLimit clusterSelector entrypoint entrypointNumCpus "
    "entrypointNumGpus entrypointResources jobId managedBy metadata rayClusterSpec runtimeEnvYAML "
    "shutdownAfterJobFinishes submissionMode submitterConfig submitterPodTemplate suspend "
    "ttlSecondsAfterFinished",
}
INNER = {
    ("RayCluster", "spec"): "RayClusterSpec",
    ("RayJob", "spec"): "RayJobSpec",
    ("RayJobSpec", "rayClusterSpec"): "RayClusterSpec",
    ("RayClusterSpec", "authOptions"): "AuthOptions",
    ("RayClusterSpec", "autoscalerOptions"): "AutoscalerOptions",
    ("RayClusterSpec", "headGroupSpec"): "HeadGroupSpec",
    ("RayClusterSpec", "workerGroupSpecs"): "WorkerGroupSpec",
}
REQUIRED = {
    "RayCluster": {"apiVersion", "kind", "metadata", "spec"},
    "RayJob": {"apiVersion", "kind", "metadata", "spec"},
    "RayClusterSpec": {"headGroupSpec"},
    "HeadGroupSpec": {"template", "rayStartParams"},
    "WorkerGroupSpec": {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"},
}


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / name).read_text())


def ray_schema() -> dict[str, Any]:
    """The cluster launcher's schema, found without importing ray."""
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return json.loads((Path(spec.origin).parent / "autoscaler/ray-schema.json").read_text())


def faults(value: Any, kind: str, where: str = "") -> list[str]:
    """What KubeRay would not know or would miss in a manifest of this type."""
    if isinstance(value, list):
        return [fault for i, item in enumerate(value) for fault in faults(item, kind, f"{where}[{i}]")]
    found = [f"{where}.{field} is missing" for field in sorted(REQUIRED.get(kind, set()) - set(value))]
    for field, inner in value.items():
        if field not in FIELDS[kind].split():
            found.append(f"{where}.{field} is no field of {kind}")
        elif (kind, field) in INNER:
            found += faults(inner, INNER[kind, field], f"{where}.{field}")
    return found


def settings(tree: Any) -> Iterator[tuple[str, Any]]:
    """Every key and value of a tree, at any depth."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key, value
            yield from settings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from settings(value)


@pytest.mark.parametrize("name", LAUNCHER)
def test_launcher_files_fit_rays_schema(name: str) -> None:
    jsonschema.validate(read(name), ray_schema())


def test_rays_schema_notices_a_mistyped_key() -> None:
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout"):
        jsonschema.validate(read("aws.yaml") | {"idle_timeout": 5}, ray_schema())


@pytest.mark.parametrize("name", KUBERAY)
def test_manifests_fit_kuberays_fields(name: str) -> None:
    manifest = read(name)
    assert manifest["apiVersion"] == "ray.io/v1"
    assert faults(manifest, manifest["kind"]) == []


def test_kuberays_fields_notice_a_mistyped_and_a_missing_one() -> None:
    manifest = read("rayjob.yaml")
    cluster = manifest["spec"]["rayClusterSpec"]
    cluster["enableIntreeAutoscaling"] = cluster.pop("enableInTreeAutoscaling")
    del cluster["workerGroupSpecs"][0]["template"]
    assert faults(manifest, "RayJob") == [
        ".spec.rayClusterSpec.workerGroupSpecs[0].template is missing",
        ".spec.rayClusterSpec.enableIntreeAutoscaling is no field of RayClusterSpec",
    ]


@pytest.mark.parametrize("name", LAUNCHER)
def test_launcher_files_open_nothing_to_the_world(name: str) -> None:
    config = read(name)
    head = " ".join(config["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in head
    assert "0.0.0.0" not in (CLUSTER / name).read_text()
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}
    keys = {key for key, _ in settings(config)}
    assert not keys & {"accessConfigs", "AssociatePublicIpAddress", "IpPermissions", "use_external_head_ip"}
    if config["provider"]["type"] != "local":
        assert config["provider"]["use_internal_ips"] is True
    if (
        config["provider"]["type"] == "gcp"
    ):  # without an interface of its own, Ray gives a node a public address
        nodes = config["available_node_types"].values()
        assert all(node["node_config"]["networkInterfaces"] for node in nodes)
    if (
        config["provider"]["type"] == "aws"
    ):  # without groups of its own, Ray makes one open to SSH from anywhere
        nodes = config["available_node_types"].values()
        assert all(node["node_config"]["SecurityGroupIds"] for node in nodes)


@pytest.mark.parametrize("name", KUBERAY)
def test_manifests_open_nothing_to_the_world(name: str) -> None:
    spec = read(name)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    keys = {key for key, _ in settings(spec)}
    assert not keys & {"hostNetwork", "hostPort", "enableIngress", "headService", "nodePort", "privileged"}


@pytest.mark.parametrize("name", ["aws.yaml", "gcp.yaml"])
def test_clouds_have_a_cpu_head_and_spot_gpu_workers_from_none_on(name: str) -> None:
    config = read(name)
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0}
    worker = types["gpu"]
    assert (worker["min_workers"], worker["max_workers"]) == (0, config["max_workers"])
    assert worker["resources"]["GPU"] >= 1
    assert {"spot", "SPOT"} & {value for _, value in settings(worker) if isinstance(value, str)}


@pytest.mark.parametrize("name", KUBERAY)
def test_manifests_have_a_cpu_head_and_gpu_workers_from_none_on(name: str) -> None:
    spec = read(name)["spec"]
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    [worker] = cluster["workerGroupSpecs"]
    assert (worker["replicas"], worker["minReplicas"]) == (0, 0)
    [container] = worker["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_all_files_name_one_image_and_the_locked_ray() -> None:
    images = {read(name)["docker"]["image"] for name in LAUNCHER}
    for name in KUBERAY:
        tree = read(name)
        images |= {value for key, value in settings(tree) if key == "image"}
        locked = re.search(r"^ray==(.*)$", (ROOT / ".ci/requirements.lock").read_text(), re.MULTILINE)
        assert locked is not None
        assert {value for key, value in settings(tree) if key == "rayVersion"} == {locked[1]}
    [image] = images
    assert f"-t {image}" in (CLUSTER / "Dockerfile").read_text()


def test_what_the_image_copies_is_let_through() -> None:
    copied = re.findall(r"^COPY (.*) \S+$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    for path in " ".join(copied).split():
        assert f"!{path}" in allowed
