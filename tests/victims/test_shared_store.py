"""Victims at a URL: another machine gets what was stored, or nothing; what is not what was stored is made anew."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from art_divqat.errors import UserError
from art_divqat.victims.shared_store import SharedStore
from art_divqat.victims.store import VictimStore

IDENTITY: dict[str, Any] = {"victim": "standard", "seed": 3}
pytest.importorskip("fsspec")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(4, 3)


def machine(root: Path, name: str, url: str | None = None) -> VictimStore:
    return VictimStore(root / name, SharedStore(url or (root / "shared").as_uri()))


def fill(folder: Path) -> None:
    (folder / "deep").mkdir(parents=True)
    (folder / "a.txt").write_text("a")
    (folder / "deep" / "b.txt").write_text("b")


def read(folder: Path) -> str:
    return (folder / "a.txt").read_text() + (folder / "deep" / "b.txt").read_text()


@pytest.mark.parametrize("kind", ["file", "memory", "path"])
def test_another_machine_has_what_one_stored(tmp_path: Path, kind: str) -> None:
    url = {"file": (tmp_path / "s").as_uri(), "memory": f"memory://{tmp_path.name}", "path": str(tmp_path / "s")}[kind]
    one, other = machine(tmp_path, "one", url), machine(tmp_path, "other", url)
    x = np.linspace(0, 1, 6, dtype=np.float32)
    one.save_weights(IDENTITY, network(0))
    one.save_arrays(IDENTITY, "evasion-1", {"x": x})
    one.save_folder(IDENTITY, "quantized", fill)
    got = network(1)
    assert other.load_weights(IDENTITY, got)
    assert torch.equal(got.weight, network(0).weight)  # type: ignore[arg-type]
    assert other.sha256(IDENTITY) == one.sha256(IDENTITY)
    np.testing.assert_array_equal((other.load_arrays(IDENTITY, "evasion-1") or {})["x"], x)
    assert other.load_folder(IDENTITY, "quantized", read) == "ab"
    assert other.sha256(IDENTITY, "quantized") == one.sha256(IDENTITY, "quantized")
    # it is that machine's own then
    alone = VictimStore(tmp_path / "other")
    assert alone.load_weights(IDENTITY, network(1))
    assert alone.load_folder(IDENTITY, "quantized", read) == "ab"


def test_what_a_machine_had_before_is_shared_when_it_is_used(tmp_path: Path) -> None:
    VictimStore(tmp_path / "one").save_weights(IDENTITY, network(0))
    other = machine(tmp_path, "other")
    assert not other.load_weights(IDENTITY, network(1))
    assert machine(tmp_path, "one").load_weights(IDENTITY, network(1))
    assert other.load_weights(IDENTITY, network(1))


def _contents(root: Path) -> list[Path]:
    return [path for path in (root / "shared").rglob("*") if len(path.name) == 64]


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "entry", "another", "no files"])
def test_what_is_not_what_was_stored_is_not_used(tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    machine(tmp_path, "one").save_weights(IDENTITY, network(0))
    (content,) = _contents(tmp_path)
    (entry,) = (tmp_path / "shared").rglob("*.json")
    described = json.loads(entry.read_text())
    if damage == "changed":
        content.write_bytes(content.read_bytes()[:-1] + b"!")
    elif damage == "cut":
        content.write_bytes(content.read_bytes()[:10])
    elif damage == "gone":
        content.unlink()
    elif damage == "entry":
        entry.write_text(entry.read_text()[:-3])
    elif damage == "another":
        entry.write_text(json.dumps({**described, "seed": 4}))
    else:
        entry.write_text(json.dumps({**described, "files": [1]}))
    other = machine(tmp_path, "other")
    with caplog.at_level(logging.WARNING):
        assert not other.load_weights(IDENTITY, network(1))
    assert "is not what was stored there: it is made anew" in caplog.text
    # made anew, it is what every machine gets
    other.save_weights(IDENTITY, network(0))
    assert machine(tmp_path, "third").load_weights(IDENTITY, network(1))


@pytest.mark.parametrize("name", ["quantized/../../../evil", "/evil", "other", "quantized/..\\evil"])
def test_a_name_leads_nowhere_else(tmp_path: Path, name: str) -> None:
    machine(tmp_path, "one").save_folder(IDENTITY, "quantized", fill)
    (entry,) = (tmp_path / "shared").rglob("*.json")
    described = json.loads(entry.read_text())
    described["files"] = {name: next(iter(described["files"].values()))}
    entry.write_text(json.dumps(described))
    assert machine(tmp_path, "other").load_folder(IDENTITY, "quantized", read) is None
    assert not list(tmp_path.rglob("*evil*"))


def test_a_url_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # as if s3fs were not installed
    monkeypatch.setitem(sys.modules, "s3fs", None)
    for url in ("nonsense://bucket/x", "s3://bucket/x"):
        with pytest.raises(UserError, match=r"^--victim-store .* cannot be used: [^\n]*$"):
            SharedStore(url)


def test_a_store_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "shared").write_text("a file")
    with pytest.raises(UserError, match="cannot be"):
        machine(tmp_path, "one").save_weights(IDENTITY, network(0))
