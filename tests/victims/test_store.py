"""What the store gives back is what was stored: anything else is named, set aside and made anew."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from art_divqat.errors import UserError
from art_divqat.victims.store import SET_ASIDE, VictimStore

IDENTITY: dict[str, Any] = {"victim": "standard", "seed": 3, "recipe": {"epochs": 1}}


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def filled(root: Path) -> tuple[VictimStore, Path]:
    store = VictimStore(root / "store")
    store.save_weights(IDENTITY, network())
    store.save_arrays(IDENTITY, "evasion-1", {"x": np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)})

    def save(folder: Path) -> None:
        (folder / "deep").mkdir(parents=True)
        (folder / "a.txt").write_text("a")
        (folder / "deep" / "b.txt").write_text("b")

    store.save_folder(IDENTITY, "quantized", save)
    return store, store.folder(IDENTITY)


def reads(store: VictimStore) -> tuple[bool, bool, bool]:
    """Whether the weights, the arrays and the folder are given."""
    return (
        store.load_weights(IDENTITY, network(1)),
        store.load_arrays(IDENTITY, "evasion-1") is not None,
        store.load_folder(IDENTITY, "quantized", lambda folder: (folder / "deep" / "b.txt").read_text()) == "b",
    )


def aside(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(f"{SET_ASIDE}/*/*"))


def flip_a_row(folder: Path) -> None:
    state = load_file(folder / "weights.safetensors")
    state["weight"][1] *= -1
    save_file(state, folder / "weights.safetensors")


def make_grey(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.full((3, 4), 0.5, np.float32)}, folder / "evasion-1.safetensors")


def cut(name: str, to: int) -> Callable[[Path], object]:
    return lambda folder: os.truncate(folder / name, to)


def replace_by_folder(name: str) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")

    return damage


def replace_by_file(folder: Path) -> None:
    for path in ("deep/b.txt", "a.txt"):
        (folder / "quantized" / path).unlink()
    (folder / "quantized" / "deep").rmdir()
    (folder / "quantized").rmdir()
    (folder / "quantized").write_text("no folder")


def edit_hash(folder: Path) -> None:
    path = folder / "victim.json"
    entry = json.loads(path.read_text())
    entry["files"]["weights.safetensors"] = "0" * 64
    path.write_text(json.dumps(entry))


def test_what_was_stored_comes_back_and_its_hash_can_be_checked_by_hand(tmp_path: Path) -> None:
    store, folder = filled(tmp_path)
    given = network(1)
    assert store.load_weights(IDENTITY, given)
    assert torch.equal(given.weight, network().weight)  # type: ignore[arg-type]
    assert reads(store) == (True, True, True)
    files = json.loads((folder / "victim.json").read_text())["files"]
    assert set(files) == {
        "weights.safetensors",
        "evasion-1.safetensors",
        "quantized/a.txt",
        "quantized/deep/b.txt",
    }
    for name, value in files.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == value
    assert store.sha256(IDENTITY) == files["weights.safetensors"]
    assert store.sha256(IDENTITY, "quantized") not in (None, *files.values())
    assert store.sha256(IDENTITY, "nothing") is None


@pytest.mark.parametrize(
    ("damage", "left", "moved"),
    [
        (flip_a_row, (False, True, True), ["weights.safetensors"]),
        (make_grey, (True, False, True), ["evasion-1.safetensors"]),
        (cut("weights.safetensors", 40), (False, True, True), ["weights.safetensors"]),
        (cut("weights.safetensors", 0), (False, True, True), ["weights.safetensors"]),
        (cut("evasion-1.safetensors", 7), (True, False, True), ["evasion-1.safetensors"]),
        (cut("quantized/deep/b.txt", 0), (True, True, False), ["quantized"]),
        (lambda folder: (folder / "quantized" / "more").write_text("c"), (True, True, False), ["quantized"]),
        (replace_by_folder("weights.safetensors"), (False, True, True), ["weights.safetensors"]),
        (replace_by_folder("evasion-1.safetensors"), (True, False, True), ["evasion-1.safetensors"]),
        (replace_by_file, (True, True, False), ["quantized"]),
        (edit_hash, (False, True, True), ["weights.safetensors"]),
        (lambda folder: (folder / "weights.safetensors").unlink(), (False, True, True), []),
        (lambda folder: (folder / "quantized" / "a.txt").unlink(), (True, True, False), ["quantized"]),
    ],
)
def test_what_is_not_what_was_stored_is_named_set_aside_and_made_anew(
    damage: Callable[[Path], object],
    left: tuple[bool, bool, bool],
    moved: list[str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, folder = filled(tmp_path)
    damage(folder)
    with caplog.at_level(logging.WARNING):
        assert reads(store) == left
    assert aside(folder) == moved
    assert len(caplog.messages) == len(moved)
    for name, message in zip(moved, caplog.messages, strict=True):
        assert str(folder / name) in message
    filled(tmp_path)
    assert reads(store) == (True, True, True)


def _other_seed(entry: dict[str, Any]) -> object:
    return {**entry, "seed": 4}


def _files_in_a_list(entry: dict[str, Any]) -> object:
    return {**entry, "files": list(entry["files"])}


@pytest.mark.parametrize("edit", [_other_seed, _files_in_a_list, lambda entry: [entry], lambda entry: None])
def test_an_entry_that_was_edited_vouches_for_nothing(
    edit: Callable[[dict[str, Any]], object], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, folder = filled(tmp_path)
    path = folder / "victim.json"
    path.write_text(json.dumps(edit(json.loads(path.read_text()))))
    assert reads(store) == (False, False, False)
    assert aside(folder) == ["evasion-1.safetensors", "quantized", "victim.json", "weights.safetensors"]
    assert "victim.json" in caplog.messages[0]
    filled(tmp_path)
    assert reads(store) == (True, True, True)


@pytest.mark.parametrize("what", ["weights.safetensors", "evasion-1.safetensors", "quantized", "victim.json", ""])
def test_what_two_victims_exchanged_is_given_for_neither(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, folder = filled(tmp_path)
    other = {**IDENTITY, "seed": 4}
    store.save_weights(other, network(4))
    store.save_arrays(other, "evasion-1", {"x": np.zeros((3, 4), np.float32)})

    def save(place: Path) -> None:
        place.mkdir()
        (place / "c").write_text("c")

    store.save_folder(other, "quantized", save)
    pair = folder / what, store.folder(other) / what
    pair[0].rename(tmp_path / "third")
    pair[1].rename(pair[0])
    (tmp_path / "third").rename(pair[1])
    given = network(1)
    for identity in (IDENTITY, other):
        weights, arrays = store.load_weights(identity, given), store.load_arrays(identity, "evasion-1")
        kept = store.load_folder(identity, "quantized", lambda place: sorted(path.name for path in place.iterdir()))
        whole = what in ("", "victim.json")
        assert weights == (not whole and what != "weights.safetensors")
        assert (arrays is not None) == (not whole and what != "evasion-1.safetensors")
        assert (kept is not None) == (not whole and what != "quantized")
        assert str(store.folder(identity)) in caplog.text
    assert torch.equal(given.weight, network(1 if not weights else 4).weight)  # type: ignore[arg-type]


def test_a_victim_of_a_store_without_hashes_is_made_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store, folder = filled(tmp_path)
    (folder / "victim.json").write_text(json.dumps(IDENTITY))
    assert not store.load_weights(IDENTITY, network(1))
    assert "has no SHA-256 in victim.json" in caplog.text
    assert aside(folder) == ["weights.safetensors"]


def test_what_was_crafted_on_another_victim_does_not_outlive_it(tmp_path: Path) -> None:
    store, _ = filled(tmp_path)
    store.save_weights(IDENTITY, network())
    assert store.load_arrays(IDENTITY, "evasion-1") is not None
    store.save_weights(IDENTITY, network(2))
    assert store.load_arrays(IDENTITY, "evasion-1") is None


def _cannot_be_written(folder: Path) -> bool:
    folder.chmod(0o500)
    try:
        (folder / "probe").write_text("")
    except OSError:
        return True
    (folder / "probe").unlink()
    return False


def test_a_read_only_store_is_read_and_what_is_wrong_in_it_is_named(tmp_path: Path) -> None:
    store, folder = filled(tmp_path)
    if not _cannot_be_written(folder):
        pytest.skip("this user may write anywhere")
    (folder / ".lock").unlink(missing_ok=True)
    try:
        assert reads(store) == (True, True, True)
        (folder / "weights.safetensors").write_bytes(b"damaged")
        with pytest.raises(UserError, match="cannot be"):
            store.load_weights(IDENTITY, network(1))
        with pytest.raises(UserError, match="cannot be written"):
            store.save_weights(IDENTITY, network())
    finally:
        folder.chmod(0o700)


def test_what_cannot_be_moved_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, folder = filled(tmp_path)
    flip_a_row(folder)

    def refuse(self: Path, target: Path) -> Path:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(UserError, match=r"weights.safetensors does not have the SHA-256 .* cannot be moved away"):
        store.load_weights(IDENTITY, network(1))


def store_both(store: VictimStore) -> None:
    store.save_weights(IDENTITY, network(5))
    store.save_arrays(IDENTITY, "evasion-2", {"x": np.zeros(3)})


@pytest.mark.parametrize("on", ["victim.json", "weights.safetensors", "evasion-2.safetensors"])
def test_a_full_disk_while_storing_leaves_a_store_that_is_whole(
    on: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, folder = filled(tmp_path)
    write_bytes = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        if on in self.name:
            write_bytes(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write_bytes(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(UserError, match="No space left"):
            store_both(store)
    given = network(1)
    if store.load_weights(IDENTITY, given):
        assert torch.equal(given.weight, network().weight) or torch.equal(given.weight, network(5).weight)  # type: ignore[arg-type]
    assert store.load_arrays(IDENTITY, "evasion-2") is None
    assert not [path for path in folder.iterdir() if path.name.startswith(".") and path.name != ".lock"]


PROCESS = """
import sys, torch
from pathlib import Path
from torch import nn
from art_divqat.victims.store import VictimStore
identity = {"victim": "standard", "seed": 3, "recipe": {"epochs": 1}}
store = VictimStore(Path(sys.argv[1]))
for number in range(40):
    torch.manual_seed(int(sys.argv[2]) + number % 2)
    store.save_weights(identity, nn.Linear(4, 3))
    store.load_weights(identity, nn.Linear(4, 3))
"""


def test_two_processes_at_once_set_nothing_aside_that_is_right(tmp_path: Path) -> None:
    store, folder = filled(tmp_path)
    processes = [
        subprocess.Popen([sys.executable, "-c", PROCESS, store.root, str(n)], stderr=subprocess.PIPE, text=True)
        for n in range(2)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert (process.returncode, errors) == (0, "")
    assert store.load_weights(IDENTITY, network(1))
    assert aside(folder) == []
