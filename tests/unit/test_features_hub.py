"""Names, and weights that are on timm's hub: what is near, what is here, what cannot be reached."""

import time
from typing import Any

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from cvgl_ray.errors import InputError
from cvgl_ray.features import hub
from cvgl_ray.features.weights import build_model, check_source, weights_digest


def test_an_unknown_name_is_told_what_is_near():
    for name, near in [
        ("swin_tiny", "swin_tiny_patch4_window7_224"),  # what begins so
        ("dinov2", "vit_base_patch14_dinov2"),  # what holds it
        ("resnet5O", "resnet50"),  # what is spelt alike
        ("mobilenet-v2-100", "mobilenetv2_100"),
    ]:
        with pytest.raises(InputError, match=rf"'{name}' is not a timm model; near it: .*{near}"):
            check_source(name)
    with pytest.raises(InputError, match="'zzzzzzzz' is not a timm model; near it: none"):
        check_source("zzzzzzzz")
    assert set(hub.near_names("swin_tiny", timm.list_models())) == {"swin_tiny_patch4_window7_224"}


def test_a_hub_that_cannot_be_reached_is_one_sentence_within_seconds(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr(
        huggingface_hub,
        "hf_hub_url",
        lambda repository, file, revision: f"http://127.0.0.1:9/{repository}/{file}",
    )
    began = time.monotonic()
    with pytest.raises(
        InputError, match=r"weights of resnet18 .*hub \(.*\); give backbone\.checkpoint a local"
    ):
        build_model("resnet18")
    assert time.monotonic() - began < 10
    assert not caplog.messages


def test_weights_nobody_published_are_told_apart_from_a_hub_that_is_away():
    with pytest.raises(InputError, match="nobody has published weights of darknet17 "):
        check_source("darknet17")


def test_weights_that_are_here_are_loaded_without_a_word_to_the_hub(monkeypatch, tmp_path):
    torch.manual_seed(5)
    source = timm.create_model("test_efficientnet", pretrained=False)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    asked: list[str] = []

    def cached(repository: str, file: str, **_: Any) -> str:
        asked.append(f"{repository}/{file}")
        return str(tmp_path / "model.safetensors")

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", refuse)
    source.reset_classifier(0)
    assert weights_digest(build_model("test_efficientnet")) == weights_digest(source)
    assert asked[0] == "timm/test_efficientnet.r160_in1k/model.safetensors"
