"""torchvision's classification families through quantization-aware training, each by both backends.

`python evaluations/benchmarks/int8-families/run.py [--families resnet18 …] [--backends fx pt2e] [--limit SECONDS]`
trains each pair in a process of its own and writes results.json and the table of README.md after each. Pairs that are
there already are left out; `--again` does them again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch._dynamo  # slow to import, and so done once: the processes are forked
from art.estimators.classification import PyTorchClassifier
from families import FAMILIES, int8_multiply_adds, multiply_adds, synthetic_images

from art_divqat.defences.trainer import QATTrainer
from art_divqat.quantization import get_backend, use_engine

FORKED = multiprocessing.get_context("fork")
HERE = Path(__file__).resolve().parent
PATH, PAGE = HERE / "results.json", HERE / "README.md"
BACKENDS = ("fx", "pt2e")
HEADING = "## Measured\n"
CLASSES, TRAINED, ASKED, BATCH = 4, 48, 64, 16


def measure(family: str, backend: str) -> dict[str, Any]:
    """Train one network for an epoch and look at what comes out."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    size, build = FAMILIES[family]
    network, shape = build(CLASSES), (3, size, size)
    x, y = synthetic_images(TRAINED + ASKED, size, CLASSES)
    float_macs = multiply_adds(network, shape)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.5  # three batches are all that it sees
    settle(network, torch.from_numpy(x[:TRAINED]))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001)
    classifier = PyTorchClassifier(
        network, torch.nn.CrossEntropyLoss(), shape, CLASSES, optimizer, clip_values=(0, 1), device_type="cpu"
    )
    row: dict[str, Any] = {"family": family, "backend": backend, "size": size}
    began = time.monotonic()
    trainer = QATTrainer(classifier, backend=backend)
    trainer.fit(x[:TRAINED], y[:TRAINED], batch_size=BATCH, nb_epochs=1)
    row["seconds"] = round(time.monotonic() - began)
    int8, asked = trainer.get_classifier(), x[TRAINED:]
    first, again = int8.predict(asked), int8.predict(asked)
    halves = np.concatenate([int8.predict(part) for part in np.array_split(asked, 2)])
    with use_engine(int8.backend.engine), torch.no_grad():
        twin = int8.twin(torch.from_numpy(asked)).numpy()
        nudge = 1e-5 * torch.randn(asked.shape, generator=torch.Generator().manual_seed(0))
        nudged = int8.twin(torch.from_numpy(asked) + nudge).numpy()
        row["int8_share"] = int8_multiply_adds(int8.int8_network, shape) / float_macs
    row |= {
        "same_twice": bool(np.array_equal(first, again)),
        "halves": float(np.abs(first - halves).mean() / max(first.std(), 1e-9)),
        "agreement": int8.agreement_with_twin(asked),
        "difference": float(np.abs(first - twin).mean() / max(twin.std(), 1e-9)),
        "rounding": float(np.abs(nudged - twin).mean() / max(twin.std(), 1e-9)),
    }
    return row


def settle(network: torch.nn.Module, images: torch.Tensor) -> None:
    """Let batch norms see the images first, as those of any trained network have."""
    with torch.no_grad():
        for _ in range(4):
            for batch in images.split(BATCH):
                network.train()(batch)


def in_a_process(family: str, backend: str, limit: float) -> dict[str, Any]:
    """What `measure` gives, or why it gave nothing."""
    row: dict[str, Any] = {"family": family, "backend": backend, "size": FAMILIES[family][0]}
    ours, theirs = FORKED.Pipe(duplex=False)
    process = FORKED.Process(target=_report, args=(theirs, family, backend))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit):
            return row | {"reason": f"not finished in {limit:.0f} s"}
        found: dict[str, Any] = ours.recv()
        return row | found
    except EOFError:
        process.join()
        return row | {"reason": f"ended with exit code {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _report(connection: Any, family: str, backend: str) -> None:
    try:
        connection.send(measure(family, backend))
    except Exception as error:
        connection.send({"reason": f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"})


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, in the order of FAMILIES."""
    lines = [
        "| network | images | backend | trains, converts | is a function | int8 multiply-adds | agreement "
        "| difference | rounding |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| `{row['family']}` | {row['size']}×{row['size']} | `{row['backend']}` |"
        if "reason" in row:
            lines.append(f"{start} no: {row['reason'].replace('|', '/')} | | | | | |")
            continue
        function = "yes" if row["same_twice"] and row["halves"] < 0.05 else f"no ({row['halves']:.2g})"
        share, agreement = f"{100 * row['int8_share']:.1f} %", f"{row['agreement']:.3f}"
        lines.append(
            f"{start} yes | {function} | {share} | {agreement} | {row['difference']:.3f} | {row['rounding']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure what is not yet there, a row at a time."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--backends", nargs="+", choices=BACKENDS, default=list(BACKENDS))
    parser.add_argument("--limit", type=float, default=300, help="seconds for one network and backend")
    parser.add_argument("--again", action="store_true", help="also those that are there already")
    arguments = parser.parse_args()
    for backend in arguments.backends:
        get_backend(backend)
    for pair in ((family, backend) for backend in arguments.backends for family in arguments.families):
        if pair in results() and not arguments.again:
            continue
        row = in_a_process(*pair, arguments.limit)
        print(row, flush=True)
        found = results() | {pair: row}  # read again, because another process may have added to it
        rows = [found[pair] for family in FAMILIES for name in BACKENDS if (pair := (family, name)) in found]
        PATH.write_text(json.dumps(rows, indent=1) + "\n")
        PAGE.write_text(PAGE.read_text().partition(HEADING)[0] + f"{HEADING}\n{table(rows)}")


def results() -> dict[tuple[str, str], dict[str, Any]]:
    """What was measured so far, by family and backend."""
    rows = json.loads(PATH.read_text()) if PATH.exists() else []
    return {(row["family"], row["backend"]): row for row in rows}


if __name__ == "__main__":
    main()
