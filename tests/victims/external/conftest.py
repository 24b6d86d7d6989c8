"""One small network trained on the digits, saved in every form that an auditor may be handed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.digits_victim import SHAPE, victim

from art_divqat.data import Dataset, load_dataset


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    return victim("lenet5", 12).model.eval()  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def data() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(scope="session")
def expected(network: torch.nn.Module, data: Dataset) -> NDArray[np.float32]:
    with torch.no_grad():
        return network(torch.from_numpy(data.x_test)).numpy()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory, network: torch.nn.Module) -> dict[str, Path]:
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models")
    state = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    x = torch.rand(4, *SHAPE)
    paths = {
        name: folder / name for name in ("m.safetensors", "m.pt", "wrapped.pth", "script.pt", "m.pt2", "fixed.pt2")
    }
    save_file(state, paths["m.safetensors"])
    torch.save(state, paths["m.pt"])
    torch.save({"epoch": 3, "model_state_dict": {f"module.{k}": v for k, v in state.items()}}, paths["wrapped.pth"])
    torch.jit.trace(network, x).save(str(paths["script.pt"]))
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.export.save(torch.export.export(network, (x,), dynamic_shapes=({0: batch},)), paths["m.pt2"])
    torch.export.save(torch.export.export(network, (x,)), paths["fixed.pt2"])
    return paths
