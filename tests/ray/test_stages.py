"""The stages on a real cluster: extraction, training on one and two workers, evaluation, localisation."""

import json
import math
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import DRONE_IMAGES, PLACES, configured, write_places

from cvgl_ray.bundle import load_bundle
from cvgl_ray.catalog.layouts import scan
from cvgl_ray.distributed.localize import localize
from cvgl_ray.em.fit import fit
from cvgl_ray.errors import InputError
from cvgl_ray.features.canonical import canonical_order
from cvgl_ray.reports.legend import MEANING
from cvgl_ray.reports.projector import SIDE_PX
from cvgl_ray.stages import evaluate_stage, extract_stage, train_stage

GROUPS = ("em", "labels", "loss", "retrieval", "system", "time")


def text(events: EventAccumulator, tag: str) -> str:
    (event,) = events.Tensors(f"{tag}/text_summary")
    return str(event.tensor_proto.string_val[0].decode())


def test_training_leaves_bundle_metrics_and_logs(run: Path) -> None:
    report = json.loads((run / "metrics.json").read_text())
    figures = report["adapted"]["drone->satellite"]
    assert (figures["queries"], figures["gallery"]) == (DRONE_IMAGES * PLACES, PLACES)
    assert report["adapted"]["satellite->drone"]["R@1"] > 50  # the patterns are easy; chance is 4 %
    assert (report["labels_read"], report["evaluated_with_labels"]) == (False, True)
    assert 0 < report["selection"]["mutual"] <= 1
    kept = report["selection"]["rounds"]
    pairs = pq.read_table(run / "bundle/pseudo_labels.parquet")
    assert PLACES < len(pairs) <= DRONE_IMAGES * PLACES  # a reference takes both images of its place

    everything = dict.fromkeys(("scalars", "images", "histograms", "tensors"), 0)
    events = EventAccumulator(str(run / "tensorboard"), size_guidance=everything).Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss/info_nce", "em/temperature", "labels/churn", "time/round_s", "system/peak_rss_mb"} <= tags
    assert {tag.partition("/")[0] for tag in tags} == set(GROUPS)
    charts = {tag.rpartition("/")[2] if tag.startswith("retrieval/") else tag for tag in tags}
    assert charts | set(events.Tags()["histograms"]) <= set(MEANING)  # the text "about" explains every one
    assert [event.step for event in events.Scalars("loss/loss")] == [0, 1, 2]
    frozen, adapted = events.Scalars("retrieval/drone->satellite/R@1")
    assert (frozen.step, adapted.step, adapted.value) == (0, kept, pytest.approx(figures["R@1"]))
    assert [event.step for event in events.Images("retrieval/by_round")] == [0, 1, 2]
    assert set(events.Tags()["images"]) == {f"retrieval/{name}" for name in ("by_round", *report["adapted"])}
    matches = [event.histogram_value for event in events.Histograms("labels/cosine_of_best")]
    assert [sum(histogram.bucket) for histogram in matches] == [DRONE_IMAGES * PLACES] * 3
    texts = {tag: text(events, tag) for tag in ("about", "configuration", "results")}
    assert "| mstep.rounds | 3 |" in texts["configuration"]
    assert "| adapter.kind | 'linear' | **'attenuation'** |" in texts["configuration"]
    assert f"{figures['R@1']:.1f}" in texts["results"]


def test_the_projector_shows_pairs_with_a_thumbnail_each(run: Path) -> None:
    folder = run / "tensorboard" / "00000" / "pairs"
    header, *lines = [line.split("\t") for line in (folder / "metadata.tsv").read_text().splitlines()]
    assert header == ["view", "image", "pseudo-partner", "cosine"]
    points = [line.split("\t") for line in (folder / "tensors.tsv").read_text().splitlines()]
    assert len(points) == len(lines) <= PLACES * (DRONE_IMAGES + 1)
    images = {line[1] for line in lines}
    assert len(images) == len(lines)  # no image twice
    assert images >= {line[2] for line in lines}  # and each beside its partner
    with Image.open(folder / "sprite.png") as sprite:
        assert sprite.size == (SIDE_PX * math.isqrt(len(lines) - 1) + SIDE_PX,) * 2
    assert "pairs" in (run / "tensorboard" / "projector_config.pbtxt").read_text()


def test_two_workers_train_the_same_adapter(run: Path, places: Path, tmp_path: Path) -> None:
    settings = (f"features.cache={run / 'features'}", "run.workers=2")
    train_stage(configured(places, *settings), tmp_path)
    one, two = (load_bundle(folder / "bundle").adapter.state_dict() for folder in (run, tmp_path))
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("policy", [(), ("estep.neighbourhood=0",), ("estep.index=Flat;",)])
def test_the_closed_form_on_two_workers_equals_one_process(
    policy: tuple[str, ...], run: Path, places: Path, tmp_path: Path
) -> None:
    settings = (f"features.cache={run / 'features'}", "run.workers=2", "adapter.kind=attenuation")
    config = configured(places, *settings, *policy)
    train_stage(config, tmp_path)
    tables = extract_stage(config, tmp_path).extraction.tables
    train = {
        view: scan("university1652", str(places), "drone", "satellite").select(view=view, split="train")
        for view in ("drone", "satellite")
    }
    used = [tables[view].only(train[view].image_ids) for view in train]
    query, reference = (table.rows(canonical_order(table)) for table in used)
    learner, _ = fit(query, reference, config.learning)
    distributed = load_bundle(tmp_path / "bundle").adapter
    torch.testing.assert_close(distributed.centre, learner.adapter.centre, rtol=1e-4, atol=1e-5)
    eye = torch.eye(query.shape[1])  # directions of one eigenvalue may come in any order and sign
    torch.testing.assert_close(distributed.encode(eye), learner.adapter.encode(eye), rtol=1e-4, atol=1e-5)


def test_renaming_places_changes_no_bit_of_the_adapter(run: Path, tmp_path: Path) -> None:
    shuffled = [f"{(7 * number + 5) % PLACES:04d}" for number in range(PLACES)]
    renamed = write_places(tmp_path / "data", shuffled)
    train_stage(configured(renamed), tmp_path / "run")
    names = ("bundle/adapter.safetensors", "bundle/metrics.json")
    for name in names:
        assert (tmp_path / "run" / name).read_bytes() == (run / name).read_bytes()
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (run, tmp_path / "run")]
    assert figures[0] == figures[1]


def test_a_finished_run_returns_at_once_and_another_configuration_is_refused(run: Path, places: Path) -> None:
    before = (run / "bundle/adapter.safetensors").read_bytes()
    checkpoints = sorted((run / "train").glob("checkpoint_*"))
    train_stage(configured(places), run)
    assert sorted((run / "train").glob("checkpoint_*")) == checkpoints
    assert (run / "bundle/adapter.safetensors").read_bytes() == before
    with pytest.raises(InputError, match=r"mstep\.rounds was 3, now 4"):
        train_stage(configured(places, "mstep.rounds=4"), run)


def test_extraction_is_done_once_and_never_reused_for_another_recipe(run: Path, places: Path) -> None:
    images = len(scan("university1652", str(places), "drone", "satellite"))
    again = extract_stage(configured(places), run).extraction
    assert (again.extracted, again.reused) == (0, images)
    turned = extract_stage(configured(places, "pretransform.query.orientations=4"), run).extraction
    assert turned.extracted == DRONE_IMAGES * PLACES  # each picture once, though its file is there thrice


def test_broken_images_are_named_and_survived(places: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(places, data)
    whole = (data / "train/drone/0003/image-0.png").read_bytes()
    (data / "train/drone/0003/image-0.png").write_bytes(whole[: len(whole) // 2])
    (data / "train/satellite/0004/image-0.png").write_bytes(b"")
    output = tmp_path / "run"
    found = extract_stage(configured(data), output).extraction
    names = {"train/drone/0003/image-0.png", "train/satellite/0004/image-0.png"}
    assert {image["image_id"] for image in found.rejected} == names
    assert set(pq.read_table(output / "rejected.parquet")["image_id"].to_pylist()) == names
    assert not names & {name for table in found.tables.values() for name in table.image_ids}
    with pytest.raises(InputError, match="2 of 108 images are broken"):
        extract_stage(configured(data, "features.max_rejected=0.01"), output)


def test_an_evaluation_starts_from_the_bundles_configuration(run: Path, places: Path, tmp_path: Path) -> None:
    cache = f"features.cache={run / 'features'}"
    report, folder = evaluate_stage(run / "bundle", tmp_path / "e", overrides=(cache,))
    assert folder == str(tmp_path / "e")
    assert report == json.loads((run / "metrics.json").read_text())
    assert json.loads((tmp_path / "e/run.json").read_text())["stage"] == "evaluate"
    with pytest.raises(
        InputError, match=r"another configuration \(backbone\.pooling was 'mean', now 'max'\)"
    ):
        evaluate_stage(run / "bundle", tmp_path / "new", overrides=("backbone.pooling=max",))
    assert not (tmp_path / "new" / "catalog.parquet").exists()


def test_an_evaluation_never_replaces_a_trainings_figures(run: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.glob("*.*")}
    report, folder = evaluate_stage(None, run, overrides=("retrieval.scores=cosine",))
    assert folder == f"{run}/evaluation"
    assert json.loads((run / "evaluation/metrics.json").read_text()) == report
    assert report["retrieval"]["scores"] == "cosine"
    assert {path: path.read_bytes() for path in before} == before


def test_localize_names_the_place_and_its_coordinates(run: Path, places: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "gallery"
    shutil.copytree(places / "test/gallery_satellite", gallery)
    rows = [f"{number:04d}/image-0.png,{number},{-number}" for number in range(PLACES)]
    (gallery / "coordinates.csv").write_text("\n".join(["image_id,latitude,longitude", *rows]))
    query = places / "test/query_satellite/0005/image-0.png"  # the very picture: similarity must put it first
    bundle = tmp_path / "bundle"
    shutil.copytree(run / "bundle", bundle)
    found = localize(bundle, str(gallery), [places / "test/query_drone/0005/image-1.png", query], 3)
    assert [len(answer["references"]) for answer in found] == [3, 3]
    best = found[0]["references"][0]
    assert best["image_id"] == "0005/image-0.png"
    assert (best["latitude"], best["longitude"]) == (5.0, -5.0)
    similarities = [reference["similarity"] for reference in found[0]["references"]]
    assert similarities == sorted(similarities, reverse=True)
    assert localize(bundle, str(gallery), [places / "test/query_drone/0005/image-1.png", query], 3) == found
    (gallery / "0005/image-0.png").unlink()
    assert localize(bundle, str(gallery), [query], 1)[0]["references"][0]["image_id"] != "0005/image-0.png"
    shutil.copy(query, gallery / "0005/image-0.png")
    with pytest.raises(InputError, match="--top 99 was asked of a gallery of 12 references; give 1 to 12"):
        localize(bundle, str(gallery), [query], 99)
    with pytest.raises(InputError, match=r"--query none\.png: there is no such file"):
        localize(bundle, str(gallery), ["none.png"], 3)
    with pytest.raises(InputError, match=r"mstep\.rounds was 3, now 4"):
        localize(bundle, str(gallery), [query], 3, overrides=("mstep.rounds=4",))

    description = json.loads((bundle / "config.json").read_text())
    description["config"]["backbone"]["seed"] = 1  # other weights, as where a checkpoint's file was replaced
    (bundle / "config.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match="trained on other features of view 'drone' than are made here"):
        localize(bundle, str(gallery), [query], 3)
