"""The one prefix under which a model's weights lie, in the ways in which the field saves them."""

import logging
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from cvgl_ray.errors import InputError
from cvgl_ray.features.weights import build_model, weights_digest

State = dict[str, torch.Tensor]


def state_of(name: str = "test_vit", seed: int = 7) -> State:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return dict(timm.create_model(name, pretrained=False, num_classes=10).state_dict())


def under(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def expected(state: State, name: str = "test_vit") -> str:
    model = timm.create_model(name, pretrained=False, num_classes=0)
    model.load_state_dict({key: state[key] for key in model.state_dict()})
    return weights_digest(model)


def without_head(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith("head.")}


STATE, STUDENT = state_of(), state_of(seed=8)
SCALE = torch.tensor(2.6)
FILES: dict[str, tuple[Any, str, str]] = {  # what the file holds, what is taken, what is left out
    "Sample4Geo": (
        {**under("model.", without_head(STATE)), "logit_scale": SCALE},
        "model.*",
        "logit_scale",
    ),
    "the same behind DataParallel": (
        {**under("module.model.", STATE), "module.logit_scale": SCALE},
        "module.model.*",
        "head.bias, head.weight, module.logit_scale",
    ),
    "Lightning, backbone": (
        {"state_dict": {**under("backbone.", without_head(STATE)), "loss.weight": SCALE}, "epoch": 3},
        "state_dict.backbone.*",
        "loss.weight",
    ),
    "Lightning, model": (
        {"state_dict": under("model.", STATE), "hyper_parameters": {"lr": 1e-3}},
        "state_dict.model.*",
        "head.bias, head.weight",
    ),
    "DINO": (
        {
            "student": {**under("module.backbone.", without_head(STUDENT)), "module.head.mlp.weight": SCALE},
            "teacher": {
                **under("backbone.", without_head(STATE)),
                "head.last_layer.weight": torch.ones(3, 3),
            },
            "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": []},
        },
        "teacher.backbone.*",
        "head.last_layer.weight",
    ),
    "timm's training": (
        {"state_dict": STATE, "state_dict_ema": STUDENT, "arch": "x"},
        "state_dict.*",
        "head",
    ),
    "DataParallel": (under("module.", STATE), "module.*", "head.bias, head.weight"),
    "a plain one": (STATE, "*", "head.bias, head.weight"),
    "a plain one with a scale": (without_head(STATE) | {"logit_scale": SCALE}, "*", "logit_scale"),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_checkpoint_of_the_field_loads_and_says_what_was_taken(kind, tmp_path, caplog):
    tree, taken, left_out = FILES[kind]
    torch.save(tree, tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, logger="cvgl_ray"):
        model = build_model("test_vit", checkpoint=str(tmp_path / "w.pth"))
    assert weights_digest(model) == expected(STATE)
    [line] = caplog.messages
    assert f"took {taken}; left out: {left_out}" in line


def test_a_prefix_in_safetensors_and_in_half_precision(tmp_path):
    save_file(
        under("model.", {key: value.half() for key, value in STATE.items()}), tmp_path / "w.safetensors"
    )
    model = build_model("test_vit", checkpoint=str(tmp_path / "w.safetensors"))
    assert weights_digest(model) == expected({key: value.half().float() for key, value in STATE.items()})


def test_what_fits_without_a_word_is_told_without_a_word(tmp_path, caplog):
    torch.save(without_head(STATE), tmp_path / "w.pth")
    with caplog.at_level(logging.INFO, logger="cvgl_ray"):
        build_model("test_vit", checkpoint=str(tmp_path / "w.pth"))
    assert not caplog.messages


def test_the_authors_own_names_are_translated_below_a_prefix(tmp_path):
    """timm knows the original names of several architectures; ResNet-like and ConvNeXt for instance."""
    model = timm.create_model("convnext_atto", pretrained=False, num_classes=10)
    names = {"stem.0": "downsample_layers.0.0", "stem.1": "downsample_layers.0.1", "head.fc": "head"}
    original = {}
    for key, value in model.state_dict().items():
        for new, old in names.items():
            key = key.replace(new, old) if key.startswith(new) else key
        key = key.replace("head.norm", "norm").replace("conv_dw", "dwconv")
        key = key.replace("mlp.fc1", "pwconv1").replace("mlp.fc2", "pwconv2")
        for stage in range(4):
            key = key.replace(f"stages.{stage}.downsample", f"downsample_layers.{stage}")
            key = key.replace(f"stages.{stage}.blocks", f"stages.{stage}")
        original[f"encoder.{key}"] = value
    torch.save({"model": original}, tmp_path / "w.pth")
    found = build_model("convnext_atto", checkpoint=str(tmp_path / "w.pth"))
    model.reset_classifier(0)
    assert weights_digest(found) == weights_digest(model)


def test_half_of_a_model_is_not_a_model(tmp_path):
    torch.save(
        under("model.", {k: v for k, v in STATE.items() if not k.startswith("blocks.5")}), tmp_path / "w.pth"
    )
    with pytest.raises(InputError, match=r"1\d weights are missing .* 0 are unknown \(first: blocks\.5\."):
        build_model("test_vit", checkpoint=str(tmp_path / "w.pth"))


def test_a_deeper_model_of_the_same_kind_is_refused(tmp_path):
    more = STATE | {key.replace("blocks.5", "blocks.6"): v for key, v in STATE.items() if "blocks.5" in key}
    torch.save(more, tmp_path / "w.pth")
    with pytest.raises(InputError, match=r"0 weights are missing .* 1\d are unknown \(first: blocks\.6\."):
        build_model("test_vit", checkpoint=str(tmp_path / "w.pth"))
