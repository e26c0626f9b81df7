"""Weights: seeded random ones, local checkpoints of every sort, and the digest that names them."""

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from cvgl_ray.errors import InputError
from cvgl_ray.features.weights import build_model, weights_digest


def with_classifier(name: str, seed: int = 7) -> torch.nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(name, pretrained=False, num_classes=10)


def saved(path: Path, tree: Any) -> str:
    if path.suffix == ".safetensors":
        save_file(tree, str(path))
    else:
        torch.save(tree, path)
    return str(path)


def test_random_weights_depend_on_the_seed_alone():
    torch.manual_seed(1)
    one = build_model("test_vit", pretrained=False, seed=3)
    following = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), following)  # building drew nothing from the caller's generator
    assert weights_digest(one) == weights_digest(build_model("test_vit", pretrained=False, seed=3))
    assert weights_digest(one) != weights_digest(build_model("test_vit", pretrained=False, seed=4))


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("test_vit", ".pth"),
        ("test_efficientnet", ".safetensors"),
        ("test_resnet", ".pth"),
        ("test_convnext", ".safetensors"),
    ],
)
def test_a_checkpoint_gives_its_weights_without_the_classifier(tmp_path, name, suffix):
    source = with_classifier(name)
    checkpoint = saved(tmp_path / f"weights{suffix}", source.state_dict())
    model = build_model(name, checkpoint=checkpoint)
    assert model.num_classes == 0
    for key, value in model.state_dict().items():
        assert torch.equal(value, source.state_dict()[key]), key


def test_a_wrapped_half_precision_checkpoint_is_unwrapped(tmp_path):
    source = with_classifier("test_vit").half()
    state = {f"module.{key}": value for key, value in source.state_dict().items()}
    model = build_model("test_vit", checkpoint=saved(tmp_path / "w.pth", {"state_dict": state, "epoch": 3}))
    assert weights_digest(model.half()) == weights_digest(_headless(source))


def _headless(model: torch.nn.Module) -> torch.nn.Module:
    model.reset_classifier(0)
    return model


def test_image_size_resizes_the_position_embedding(tmp_path):
    model = build_model("test_vit", pretrained=False, image_size=64)
    with torch.inference_mode():
        assert model.forward_features(torch.zeros(1, 3, 64, 64)).shape[1] == 1 + 16
    assert build_model("test_resnet", pretrained=False, image_size=64) is not None


def test_an_image_size_below_one_patch_is_refused():
    with pytest.raises(InputError, match=r"test_vit cannot take backbone\.image_size 8 "):
        build_model("test_vit", pretrained=False, image_size=8)


def test_an_unknown_tag_is_refused_in_one_sentence():
    with pytest.raises(InputError, match=r"timm cannot make backbone\.name 'test_vit\.nonsense' \(.*tag"):
        build_model("test_vit.nonsense", pretrained=False)


def test_a_checkpoint_never_asks_the_hub(tmp_path, monkeypatch):
    checkpoint = saved(tmp_path / "w.pth", with_classifier("test_vit").state_dict())
    create, asked = timm.create_model, []

    def record(*args: Any, pretrained: bool, **options: Any) -> torch.nn.Module:
        asked.append(pretrained)
        return create(*args, pretrained=pretrained, **options)

    monkeypatch.setattr(timm, "create_model", record)
    build_model("test_vit", checkpoint=checkpoint, pretrained=True)
    assert asked == [False]


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("test_vit", "test_vit2"),
        ("test_efficientnet", "test_byobnet"),
        ("test_resnet", "test_vit2"),
        ("test_convnext", "test_byobnet"),
    ],
)
def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, name, other):
    checkpoint = saved(tmp_path / "w.pth", with_classifier(other).state_dict())
    with pytest.raises(
        InputError,
        match=rf"is not one of {name}: \d+ weights are missing or differ in shape and \d+ are unknown",
    ):
        build_model(name, checkpoint=checkpoint)


def test_weights_of_other_shapes_are_refused(tmp_path):
    state = with_classifier("test_vit").state_dict() | {"norm.weight": torch.zeros(5)}
    with pytest.raises(
        InputError,
        match=r"1 weights are missing or differ .* 0 are unknown \(first: of norm\.weight the shape",
    ):
        build_model("test_vit", checkpoint=saved(tmp_path / "w.pth", state))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(InputError, match="is not a file"):
            build_model("test_vit", checkpoint=str(path))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path, suffix, share):
    path = tmp_path / f"weights{suffix}"
    saved(path, with_classifier("test_vit").state_dict())
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="cannot be read"):
        build_model("test_vit", checkpoint=str(path))


def test_a_file_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        build_model("test_vit", checkpoint=saved(tmp_path / "w.pth", torch.zeros(3)))
    with pytest.raises(InputError, match="holds no weights, which are tensors by name"):
        build_model("test_vit", checkpoint=saved(tmp_path / "v.pth", {"surprise": 1}))


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.sprung),)


@pytest.mark.filterwarnings("ignore")  # a warning must not be what stops the code
@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_pickle_with_code_is_refused_and_never_run(tmp_path, protocol):
    sprung, path = tmp_path / "sprung", tmp_path / "w.pth"
    if protocol == "torch":
        torch.save({"model": Trap(sprung)}, path)
    else:
        path.write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(InputError, match="cannot be read"):
        build_model("test_vit", checkpoint=str(path))
    assert not sprung.exists()
    pickle.loads(pickle.dumps(Trap(sprung)))
    assert sprung.exists()  # the trap works


def test_the_digest_sees_every_value_name_and_shape():
    def digest(**tensors: torch.Tensor) -> str:
        model = torch.nn.Module()
        for name, value in tensors.items():
            model.register_buffer(name, value)
        return weights_digest(model)

    known = digest(a=torch.arange(6.0), n=torch.tensor(3))
    assert known == digest(n=torch.tensor(3), a=torch.arange(6.0))  # the order of registration is no matter
    assert known == digest(a=torch.arange(12.0)[::2] / 2, n=torch.tensor(3))  # nor is the memory layout
    others = [
        digest(b=torch.arange(6.0), n=torch.tensor(3)),
        digest(a=torch.arange(6.0).view(2, 3), n=torch.tensor(3)),
        digest(a=torch.arange(6.0) + torch.eye(6)[5] * 1e-6, n=torch.tensor(3)),
        digest(a=torch.arange(6.0), n=torch.tensor(4)),
        digest(a=torch.arange(6.0)),
    ]
    assert len({known, *others}) == 6
