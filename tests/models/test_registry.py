"""Every architecture builds, is reproducible, gives logits of the right shape, and trains for one step."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from art_divqat.errors import UserError
from art_divqat.models import MODELS, build_model, list_models
from art_divqat.models.registry import check_model


@pytest.mark.parametrize("name", list_models())
@pytest.mark.parametrize("channels", [1, 3])
def test_builds_and_backpropagates(name: str, channels: int) -> None:
    side = max(8, MODELS[name].smallest_side)
    network = build_model(name, (channels, side, side), 7, seed=0)
    logits = network(torch.rand(2, channels, side, side))
    assert logits.shape == (2, 7)
    logits.sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in network.parameters())


def test_seed_decides_the_weights_and_leaves_the_global_state_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    first, again, other = (build_model("small-cnn", (1, 8, 8), 10, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])  # type: ignore[index]
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(next(iter(first.parameters())), next(iter(other.parameters())))


def test_unknown_and_too_small() -> None:
    with pytest.raises(UserError, match="did you mean mobilenet-v2"):
        check_model("mobilnet-v2")
    with pytest.raises(UserError, match="at least 32×32 pixels, these are 8×8"):
        build_model("vgg16", (1, 8, 8), 10, seed=0)
    with pytest.raises(UserError, match="at least 2 classes"):
        build_model("lenet5", (1, 8, 8), 1, seed=0)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        (" Torchvision:MobileNet-V3-Small ", "torchvision:mobilenet_v3_small"),
        ("normalized:ResNet20", "normalised:resnet20"),
        ("normalised:normalised:torchvision:resnet18", "normalised:torchvision:resnet18"),
        ("Probed:normalised:torchvision:resnet18", "probed:torchvision:resnet18"),
    ],
)
def test_forms_have_one_spelling(given: str, canonical: str) -> None:
    assert check_model(given) == canonical
    assert given in MODELS
    assert canonical not in list_models()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("torchvision:resnet81", "Unknown torchvision network 'resnet81': did you mean resnet18"),
        ("torchvision:", r"Unknown model 'torchvision:': did you mean torchvision:NAME\?"),
        ("normalised:lenet", "did you mean"),
        ("tim:resnet18", "Unknown model 'tim:resnet18'"),
    ],
)
def test_unknown_forms(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_model(name)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "torchvision:shufflenet_v2_x0_5"])
@pytest.mark.parametrize("channels", [1, 3])
def test_networks_of_torchvision(name: str, channels: int) -> None:
    shape = (channels, 64, 64)
    assert check_model(name, shape) == name
    first, again, other = (build_model(name, shape, 5, seed=seed) for seed in (0, 0, 1))
    assert first(torch.rand(2, *shape)).shape == (2, 5)
    ours, same, differing = (list(network.parameters()) for network in (first, again, other))
    assert all(map(torch.equal, ours, same))
    assert not all(map(torch.equal, ours, differing))


def test_a_transformer_is_built_for_the_size_of_the_images() -> None:
    network = build_model("torchvision:vit_b_32", (1, 96, 96), 4, seed=0)
    assert network(torch.rand(1, 1, 96, 96)).shape == (1, 4)


def test_an_image_that_a_librarys_network_refuses_is_named_before_anything_starts() -> None:
    with pytest.raises(UserError, match=r"'torchvision:inception_v3' does not take images of 32×40: .*--image-size"):
        check_model("torchvision:inception_v3", (3, 32, 40))
    with pytest.raises(UserError, match=r"'torchvision:inception_v3' does not take images of 32×40"):
        check_model("normalised:torchvision:inception_v3", (1, 32, 40))


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "mobilenet-v2"])
def test_stems_by_the_size_of_images(name: str) -> None:
    def stem(side: int, channels: int = 3) -> tuple[int, ...]:
        network = build_model(name, (channels, side, side + 8), 4, seed=0)
        first = next(each for each in network.modules() if isinstance(each, torch.nn.Conv2d))
        return (*first.weight.shape[1:], *first.stride)  # type: ignore[misc]

    kernel = 3 if name == "mobilenet-v2" else 7
    assert stem(64) == (3, 3, 3, 1, 1)
    assert stem(65) == (3, kernel, kernel, 2, 2)
    assert stem(65, channels=1) == (1, kernel, kernel, 2, 2)


def test_above_64_the_network_is_torchvisions_own() -> None:
    import torchvision

    own = torchvision.models.resnet18(weights=None, num_classes=4)
    own.load_state_dict(build_model("resnet18", (3, 96, 96), 4, seed=0).state_dict())


@pytest.mark.parametrize("shape", [(1, 33, 50), (3, 64, 64)])
def test_networks_of_timm_are_made_of_torchs_own_layers_and_answer_the_same(shape: tuple[int, int, int]) -> None:
    timm = pytest.importorskip("timm")
    network = build_model("timm:tf_efficientnet_lite0", shape, 4, seed=0)
    original = timm.create_model("tf_efficientnet_lite0", num_classes=4, in_chans=shape[0])
    assert list(network.state_dict()) == list(original.state_dict())
    original.load_state_dict(network.state_dict())
    x = torch.rand(2, *shape)
    assert torch.allclose(network.eval()(x), original.eval()(x), atol=1e-6)
    network.load_state_dict(build_model("timm:tf_efficientnet_lite0", shape, 4, seed=1).state_dict())
    assert not torch.allclose(network(x), original(x), atol=1e-6)
    assert not {type(each).__name__ for each in network.modules()} & {"Conv2dSame", "BatchNormAct2d"}
    assert MODELS.origin("timm:tf_efficientnet_lite0") == f"timm {timm.__version__}"


def test_timm_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"need the package timm: pip install 'art-divqat\[public-weights\]'"):
        check_model("timm:resnet18")
