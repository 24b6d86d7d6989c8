"""Both backends keep the same protocol; the traps that quantization sets are pinned here."""

from __future__ import annotations

import copy
import importlib
import subprocess
import sys
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from art_divqat.errors import MissingExtraError, UserError
from art_divqat.models import build_model
from art_divqat.quantization import get_backend, serialized_bytes, supported_engines, use_engine

SHAPES = {"small-cnn": (1, 8, 8), "resnet20": (3, 16, 16), "lenet5": (1, 8, 8)}
BACKENDS = [
    "fx",
    pytest.param("pt2e", marks=pytest.mark.skipif(not importlib.util.find_spec("torchao"), reason="torchao")),
]


def images(name: str, n: int = 32, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, *SHAPES[name], generator=torch.Generator().manual_seed(seed))


def trained(backend_name: str, model: str, steps: int = 4):
    """A prepared network after a few steps, and the backend."""
    backend = get_backend(backend_name)
    prepared = backend.prepare(build_model(model, SHAPES[model], 10, seed=0), SHAPES[model])
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    labels = torch.arange(32) % 10
    for step in range(steps):
        loss = nn.functional.cross_entropy(prepared(images(model, seed=step)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return backend, prepared


@pytest.mark.slow  # torchao folds batch norm by exporting every pattern anew, about 15 s a network
@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("model", ["small-cnn", "resnet20"])
def test_int8_network_follows_its_twin(backend_name: str, model: str) -> None:
    backend, prepared = trained(backend_name, model)
    twin, int8 = backend.freeze(prepared), backend.convert(prepared)
    x = images(model, 64, seed=9)
    with torch.no_grad():
        difference = (twin(x) - int8(x)).abs().max()
        spread = twin(x).std()
    assert difference < spread, "the int8 network has little to do with the network that was trained"
    assert backend.describe(int8).bytes < 0.45 * serialized_bytes(build_model(model, SHAPES[model], 10, seed=0))
    assert backend.describe(int8).weight_bits == 8
    assert backend.describe(int8).to_dict()["backend"] == backend_name


@pytest.mark.parametrize("backend_name", BACKENDS)
@pytest.mark.parametrize("model", ["small-cnn", "resnet20"])
def test_frozen_twin_has_no_state_and_no_batch_effect(backend_name: str, model: str) -> None:
    backend, prepared = trained(backend_name, model)
    for twin in (backend.freeze(prepared), copy.deepcopy(backend.freeze(prepared))):
        before = {key: value.clone() for key, value in twin.state_dict().items()}
        twin.train(True)  # ART does this
        x = images(model, 16, seed=3)
        with torch.no_grad():
            together = twin(x)
            twin(100 * x)  # an observer that still moves would widen its range
            apart = torch.cat([twin(image[None]) for image in x])
        assert not any(module.training for module in twin.modules() if isinstance(module, nn.BatchNorm2d))
        # Rounding of a value next to a quantization step is all that a batch may change.
        assert (together - apart).abs().median() < 1e-4
        for key, value in twin.state_dict().items():
            if not key.endswith(
                "num_batches_tracked"
            ):  # an exported graph counts its batches in eval mode, to no effect
                assert torch.equal(value, before[key]), key


@pytest.mark.parametrize("backend_name", BACKENDS)
@given(n=st.integers(1, 9))
@settings(max_examples=5, deadline=None)
def test_any_batch_size(backend_name: str, n: int) -> None:
    backend, prepared = _cached(backend_name)
    assert backend.convert(prepared)(images("lenet5", n)).shape == (n, 10)
    assert backend.freeze(prepared)(images("lenet5", n)).shape == (n, 10)


_CACHE: dict[str, tuple] = {}


def _cached(backend_name: str):
    if backend_name not in _CACHE:
        _CACHE[backend_name] = trained(backend_name, "lenet5", 1)
    return _CACHE[backend_name]


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_prepare_leaves_the_network_alone_and_has_its_own_parameters(backend_name: str) -> None:
    network = build_model("small-cnn", (1, 8, 8), 10, seed=0).eval()
    before = copy.deepcopy(network.state_dict())
    prepared = get_backend(backend_name).prepare(network, (1, 8, 8))
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    state = copy.deepcopy(dict(prepared.named_parameters()))
    prepared(images("small-cnn")).sum().backward()
    optimizer.step()  # the trap: the optimizer of the network that came in trains nothing here
    assert all(torch.equal(value, state[key]) for key, value in prepared.named_parameters())
    assert not network.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_calibration_gives_ranges_without_training(backend_name: str) -> None:
    network = build_model("lenet5", (1, 8, 8), 10, seed=0).eval()
    x = images("lenet5", 128)
    backend = get_backend(backend_name)
    prepared = backend.prepare(network, (1, 8, 8))
    backend.calibrate(prepared, x.split(64))
    with torch.no_grad():
        exact, int8 = network(x), backend.convert(prepared)(x)
        assert (exact - int8).abs().mean() < 0.1 * exact.std()
    with pytest.raises(UserError, match="at least one batch"):
        backend.calibrate(prepared, [])


def test_prepare_uses_fake_quantizers_not_observers_alone() -> None:
    """`get_default_qconfig` in place of the QAT one would train a float network."""
    backend, prepared = _cached("fx")
    x = images("lenet5")
    backend.set_mode(prepared, training=False, observe=False)
    with torch.no_grad():
        quantized = prepared(x)
        backend.set_mode(prepared, training=False, observe=False, fake_quantize=False)
        exact = prepared(x)
    backend.set_mode(prepared, training=False, observe=False)
    assert not torch.equal(quantized, exact)


@pytest.mark.parametrize("engine", supported_engines())
def test_every_engine_runs_and_the_global_one_is_restored(engine: str) -> None:
    other = supported_engines()[-1]
    with use_engine(other):
        backend = get_backend("fx", engine)
        prepared = backend.prepare(build_model("lenet5", (1, 8, 8), 10, seed=0), (1, 8, 8))
        backend.calibrate(prepared, [images("lenet5")])
        int8 = backend.convert(prepared)
        assert torch.backends.quantized.engine == other
        with use_engine(engine), torch.no_grad():
            assert torch.isfinite(int8(images("lenet5"))).all()
        with pytest.raises(RuntimeError, match="inside"), use_engine(engine):
            raise RuntimeError("inside")
        assert torch.backends.quantized.engine == other


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        if x.sum() > 0:
            x = x + 1
        return self.linear(x.flatten(1))


class Block(nn.Module):
    """A residual block as torchvision writes it, with one ReLU for both places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(1) for _ in range(2))
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        inner = self.norms[1](self.second(self.relu(self.norms[0](self.first(x)))))
        inner += x
        return self.head(self.relu(inner).flatten(1))


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_a_module_may_be_called_twice(backend_name: str) -> None:
    backend, x = get_backend(backend_name), images("lenet5")
    prepared = backend.prepare(Block(), (1, 8, 8))
    prepared(x).sum().backward()
    twin, int8 = backend.freeze(prepared), backend.convert(prepared)
    with torch.no_grad():
        assert (twin(x) - int8(x)).abs().max() < 0.2 * twin(x).std()


@pytest.mark.parametrize("backend_name", BACKENDS)
def test_untraceable_names_the_line_and_the_way_out(backend_name: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        UserError,
        match=r"cannot trace Branching at `if x.sum\(\) > 0:` \(test_backend.py:\d+\).*no backend can.*torch.where",
    ) as caught:
        get_backend(backend_name).prepare(Branching(), (1, 8, 8))
    assert capfd.readouterr() == ("", ""), "torch's own account of it"
    assert "try backend" not in str(caught.value)


_REWRITE = "no backend can trace: rewrite it with torch.where"


class Deciding(nn.Module):
    """Takes a path in Python by something that is no number in the network."""

    def __init__(self, decide) -> None:
        super().__init__()
        self.linear, self.decide = nn.Linear(64, 10), decide
        self.register_buffer("gain", torch.ones(1))

    def forward(self, x):
        if self.decide(self, x):
            x = 2 * x
        return self.linear(x.flatten(1))


@pytest.mark.parametrize(
    ("decide", "way_out"),
    [
        # fx reads a number that the network has
        (lambda network, x: network.gain > 0, {"pt2e": "try backend='fx'"}),
        # pt2e traces what depends on the size of the images, fx does not
        (lambda network, x: x.shape[-1] > 3, {"fx": "try backend='pt2e'"}),
        (lambda network, x: x.abs().max() >= 0, {"fx": _REWRITE, "pt2e": _REWRITE}),
        (
            lambda network, x: [each.sum() for each in x],
            {"pt2e": "asks for the number of images", "fx": "try backend='pt2e'"},
        ),
    ],
)
@pytest.mark.parametrize("backend_name", BACKENDS)
def test_nobody_is_sent_from_one_backend_to_the_other_and_back(backend_name: str, decide, way_out) -> None:
    backend = get_backend(backend_name)
    if backend_name not in way_out:
        assert backend.prepare(Deciding(decide), (1, 8, 8))(torch.rand(3, 1, 8, 8)).shape == (3, 10)
        return
    with pytest.raises(UserError, match=way_out[backend_name]):
        backend.prepare(Deciding(decide), (1, 8, 8))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_backend("gptq"), "one of 'fx', 'pt2e'"),
        (lambda: get_backend("fx", "cuda"), "choose one of .*" + supported_engines()[0]),
        (lambda: get_backend("fx", None, 1), "True or False"),
    ],
)
def test_bad_input(call, message: str) -> None:
    with pytest.raises(UserError, match=message):
        call()


@pytest.mark.parametrize(
    ("name", "lost", "message"),
    [
        ("fx", "torch.ao.quantization.quantize_fx", "backend='pt2e'"),
        ("pt2e", "torchao.quantization", r"art-divqat\[pt2e\]"),
    ],
)
def test_a_lost_library_is_a_sentence(name: str, lost: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, lost, None)
    monkeypatch.delitem(sys.modules, f"art_divqat.quantization.{name}", raising=False)
    if name == "fx":
        monkeypatch.delattr(torch.ao.quantization, "quantize_fx", raising=False)
    with pytest.raises(MissingExtraError, match=message):
        get_backend(name)


def test_no_deprecation_warning_escapes() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trained("fx", "lenet5", 1)[0].convert(_cached("fx")[1])


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, art_divqat.quantization as q; assert 'torch' not in sys.modules, 'torch'"
    subprocess.run([sys.executable, "-c", code], check=True)
