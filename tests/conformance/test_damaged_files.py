"""Damaged and hostile files: taken, or refused in one line; nothing of theirs is run, and nothing is written.

Every damage is drawn from a seeded generator, so that a failure comes again.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.external_models import SHAPE, export_onnx

from art_divqat.api import evaluate, prepare
from art_divqat.data import load_dataset
from art_divqat.data.sources import load_raw
from art_divqat.errors import UserError
from art_divqat.models import build_model
from art_divqat.report import FORMATS, render
from art_divqat.results.build import read_results
from art_divqat.results.journal import Journal
from art_divqat.victims.external import ExternalModel, load_external
from art_divqat.victims.external.adapter import probe

MODELS, DATA, JOURNALS = 200, 200, 200


class Canary:
    """Touches a file wherever it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Flipped, cut, repeated or foreign bytes; of an archive as often its members, with their checksums made right."""
    if content[:4] == b"PK\x03\x04" and rng.random() < 0.5:
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
            names = old.namelist()
            hit = rng.choice(names)
            for name in names:
                member = old.read(name)
                new.writestr(name, damaged(member, rng) if name == hit and member else member)
        return out.getvalue()
    data = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(max(1, len(data)))
        kind = rng.randrange(5)
        if kind == 0:
            del data[place:]
        elif kind == 1:
            data[place : place + 4] = rng.randbytes(4)
        elif kind == 2:
            data[place:place] = data[place : place + rng.randint(1, 64)]
        elif kind == 3:
            data[place : place + 8] = rng.choice([b"\xff" * 8, b"\0" * 8, b"999999999", b'{"a":[', b"../../x"])
        else:
            # headers are where parsers are
            start = rng.randrange(min(200, len(data)) or 1)
            data[start : start + 1] = rng.randbytes(1)
    return bytes(data)


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder with the hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def taken_or_refused(do: Callable[[], Any], folder: Path, what: Any) -> bool:
    """Whether it was taken; fails on any other exception than a UserError of one line, and on a changed file."""
    before = tree(folder)
    try:
        do()
        taken = True
    except UserError as error:
        taken, said = False, str(error)
    else:
        said = ""
    assert "\n" not in said, what
    assert tree(folder) == before, what
    return taken


@pytest.fixture(scope="module")
def model_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    from safetensors.torch import save_file

    from art_divqat.defences.trainer import quantize_post_training
    from art_divqat.estimators import RecipeClassifier, TrainingRecipe

    folder = tmp_path_factory.mktemp("models")
    data = load_dataset("digits", limit=200)
    classifier = RecipeClassifier(
        build_model("lenet5", SHAPE, 10, seed=0), SHAPE, 10, TrainingRecipe(epochs=8, learning_rate=3e-3)
    )
    classifier.fit(data.x_train, data.y_train)
    network = classifier.model.eval()
    state = {name: value.detach().clone().contiguous() for name, value in network.state_dict().items()}
    save_file(state, folder / "m.safetensors")
    torch.save(state, folder / "m.pt")
    torch.jit.trace(network, torch.rand(4, *SHAPE)).save(str(folder / "s.pt"))
    torch.export.save(torch.export.export(network, (torch.rand(4, *SHAPE),)), folder / "m.pt2")
    quantize_post_training(classifier, data.x_train[:64], architecture="lenet5").save(folder / "saved")
    found = {path.name: path for path in folder.iterdir()}
    with contextlib.suppress(pytest.skip.Exception):
        found["m.onnx"] = export_onnx(network, folder / "m.onnx", dynamic_axes={"image": {0: "batch"}})
    return found


@pytest.mark.slow
def test_two_hundred_damaged_models(model_files: dict[str, Path], tmp_path: Path) -> None:
    data = load_dataset("digits", limit=200)
    names, outcomes = sorted(model_files), []
    for number in range(MODELS):
        rng = random.Random(number)
        base = model_files[names[number % len(names)]]
        place = tmp_path / str(number)
        place.mkdir()
        target = place / base.name
        if base.is_dir():
            shutil.copytree(base, target)
            file = target / rng.choice(["classifier.json", "classifier.json", "twin.safetensors"])
            file.write_bytes(damaged(file.read_bytes(), rng))
        else:
            target.write_bytes(damaged(base.read_bytes(), rng))
        # code is never trusted here, so that a program is refused whatever is in it
        model = ExternalModel(
            source=str(target), architecture="lenet5" if base.name in ("m.safetensors", "m.pt") else None
        )

        def read(model: ExternalModel = model) -> None:
            probe(load_external(model, SHAPE, 10), data.x_test, data.y_test, "auto")

        outcomes.append((base.name, taken_or_refused(read, place, (number, base.name))))
        shutil.rmtree(place)
    assert not any(taken for name, taken in outcomes if name in ("s.pt", "m.pt2"))
    # damage to weights alone cannot be seen; most of it is
    assert sum(taken for _, taken in outcomes) < MODELS / 2


@pytest.mark.parametrize("name", ["m.pt", "m.pth", "m.bin", "m.ckpt", "m.joblib", "m.pkl", "m.safetensors", "m.onnx"])
def test_a_pickle_is_never_run_as_a_model(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    for content in (
        pickle.dumps(Canary(tmp_path / "canary")),
        b"PK\x03\x04" + pickle.dumps(Canary(tmp_path / "canary")),
    ):
        target.write_bytes(content)
        model = ExternalModel(source=str(target), architecture="lenet5")
        assert not taken_or_refused(lambda model=model: load_external(model, SHAPE, 10), tmp_path, name)
    assert not (tmp_path / "canary").exists()


def test_an_onnx_file_reads_nothing_outside_its_folder_and_knows_no_foreign_operators(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(np.ones((64, 10), np.float32).tobytes())
    shape = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])
    rows = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])
    for number, location in enumerate(["../secret.bin", str(tmp_path / "secret.bin"), "a/../../secret.bin"]):
        weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[64, 10])
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=location)
        nodes = [onnx.helper.make_node("Flatten", ["x"], ["f"]), onnx.helper.make_node("MatMul", ["f", "w"], ["y"])]
        graph = onnx.helper.make_graph(nodes, "g", [shape], [rows], [weights])
        path = inside / f"{number}.onnx"
        path.write_bytes(onnx.helper.make_model(graph).SerializeToString())
        model = ExternalModel(source=str(path))
        assert not taken_or_refused(lambda model=model: load_external(model, SHAPE, 10), tmp_path, location)
    node = onnx.helper.make_node("Sing", ["x"], ["y"], domain="com.example")
    graph = onnx.helper.make_graph([node], "g", [shape], [rows])
    imports = [onnx.helper.make_opsetid("com.example", 1), onnx.helper.make_opsetid("", 17)]
    (inside / "op.onnx").write_bytes(onnx.helper.make_model(graph, opset_imports=imports).SerializeToString())
    model = ExternalModel(source=str(inside / "op.onnx"))
    assert not taken_or_refused(lambda: load_external(model, SHAPE, 10), tmp_path, "op")


def _idx(values: np.ndarray) -> bytes:
    head = bytes([0, 0, 8, values.ndim]) + b"".join(size.to_bytes(4, "big") for size in values.shape)
    return head + values.astype(np.uint8).tobytes()


def _data_bases(folder: Path) -> dict[str, Path]:
    from PIL import Image

    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (48, 8, 8), dtype=np.uint8), np.arange(48) % 2
    np.savez(folder / "d.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    np.savez_compressed(folder / "c.npz", x_train=images / 255, y_train=labels, x_test=images / 255, y_test=labels)
    for number, image in enumerate(images):
        (folder / "pictures" / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        suffix = ("png", "jpg", "bmp", "gif", "tif", "pgm")[number % 6]
        Image.fromarray(image).save(folder / "pictures" / f"class{number % 2}" / f"{number}.{suffix}")
    raw = folder / "root" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for name, content in (("images-idx3", images), ("labels-idx1", labels)):
            (raw / f"{part}-{name}-ubyte").write_bytes(_idx(content))
            (raw / f"{part}-{name}-ubyte.gz").write_bytes(gzip.compress(_idx(content)))
    return {
        "d.npz": folder / "d.npz",
        "c.npz": folder / "c.npz",
        "pictures": folder / "pictures",
        "root": folder / "root",
    }


def test_two_hundred_damaged_data_files(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    bases = _data_bases(base)
    for name in bases:
        _load(name, bases[name])
    for number in range(DATA):
        rng = random.Random(number)
        name = sorted(bases)[number % len(bases)]
        place = tmp_path / str(number)
        place.mkdir()
        target = place / name
        if bases[name].is_dir():
            shutil.copytree(bases[name], target)
            file = rng.choice(sorted(path for path in target.rglob("*") if path.is_file() and path.suffix != ".gz"))
        else:
            shutil.copy(bases[name], target)
            file = target
        file.write_bytes(damaged(file.read_bytes(), rng))
        taken_or_refused(lambda name=name, target=target: _load(name, target), place, (number, name, file.name))
        shutil.rmtree(place)


def _load(name: str, path: Path) -> None:
    if name == "root":
        load_raw("mnist", data_root=path)
    else:
        load_dataset(f"{'folder' if name == 'pictures' else 'npz'}:{path}")


def test_a_pickle_is_never_run_as_data(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {name: np.zeros((4, 8, 8), np.uint8) for name in ("x_train", "x_test")}
    arrays |= {name: np.array([Canary(tmp_path / "canary")] * 4, dtype=object) for name in ("y_train", "y_test")}
    np.savez(tmp_path / "evil.npz", **arrays)
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    for name in ("evil.npz", "plain.npz"):
        assert not taken_or_refused(lambda name=name: load_dataset(f"npz:{tmp_path / name}"), tmp_path, name)
    assert not (tmp_path / "canary").exists()


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    from art_divqat.plan.config import make_config, read_config
    from evaluations.benchmarks.kill.killing import CONFIG

    folder = tmp_path_factory.mktemp("run")
    (folder / "c.yaml").write_text(CONFIG)
    values = {**read_config(folder / "c.yaml"), "seeds": 1, "budgets": [20], "jobs": 1, "defences": ["none"]}
    evaluate(prepare(make_config(values)), folder / "run", store=folder / "store")
    return (folder / "run" / "journal.jsonl").read_bytes()


def _rechained(content: bytes, rng: random.Random, path: Path) -> None:
    """A journal whose chain is right and whose entries are not: one value anywhere is another one, or gone."""
    entries = [json.loads(line)["entry"] for line in content.splitlines()]
    node: Any = rng.choice(entries)
    while True:
        key = rng.choice(sorted(node)) if isinstance(node, dict) else rng.randrange(len(node))
        if isinstance(node[key], (dict, list)) and node[key] and rng.random() < 0.8:
            node = node[key]
            continue
        break
    if rng.random() < 0.3:
        del node[key]
    else:
        node[key] = rng.choice([None, -1, 10**30, 1e308, "", "x", [], {}, True, [[1]], {"a": {}}, "<b>"])
    journal = Journal(path)
    journal.start(entries[0])
    for entry in entries[1:]:
        journal.append(entry)


@pytest.mark.slow
def test_two_hundred_damaged_journals(journal: bytes, tmp_path: Path) -> None:
    for number in range(JOURNALS):
        rng = random.Random(number)
        folder = tmp_path / str(number)
        folder.mkdir()
        path = folder / "journal.jsonl"
        if number % 2:
            path.write_bytes(damaged(journal, rng))
        else:
            _rechained(journal, rng, path)
        output_format = sorted(FORMATS)[number // 2 % len(FORMATS)]
        if output_format == "html" and number % 3:
            output_format = "md"

        def report(folder: Path = folder, output_format: str = output_format) -> None:
            render(read_results(folder), output_format)

        taken_or_refused(report, folder, (number, output_format))
        shutil.rmtree(folder)
