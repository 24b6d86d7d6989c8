"""The command line from end to end, as its user meets it: what it prints where, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TINY = [
    *("--limit", "150", "--budget", "30,60", "--seeds", "1", "--answers", "soft", "--model", "lenet5"),
    *("--query-pool", "in-distribution", "--jobs", "1"),
]


def run(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "art_divqat", *arguments],
        cwd=cwd,
        env={**os.environ, "XDG_CACHE_HOME": str(cwd / "cache"), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def config(root: Path) -> Path:
    path = root / "tiny.yaml"
    path.write_text("victim_recipe: {epochs: 2}\nthief_recipe: {epochs: 2}\nevasion: {images: 20, steps: 2}\n")
    return path


def test_evaluate_robust_with_knockoff(root: Path, config: Path) -> None:
    done = run("evaluate", "--victim", "robust", "--attack", "knockoff", *TINY, "--config", str(config), cwd=root)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "standard" in done.stdout
    assert "robust" in done.stdout
    assert "ε = 0.2" in done.stdout
    assert "Report: " in done.stdout
    report = root / done.stdout.rsplit("Report: ", 1)[1].strip()
    assert report.is_file()

    again = run("evaluate", "--config", str(report.parent / "config.yaml"), "--output", "again", "--json", cwd=root)
    assert again.returncode == 0, again.stderr
    first, second = json.loads((report.parent / "results.json").read_text()), json.loads(again.stdout)
    assert first["config"] == second["config"]
    for one, other in zip(first["cells"], second["cells"], strict=True):
        assert one["metrics"]["agreement"] == other["metrics"]["agreement"]

    for output_format in ("md", "json", "html"):
        shown = run("report", str(report.parent), "--format", output_format, cwd=root)
        assert shown.returncode == 0, shown.stderr
        assert "robust" in shown.stdout

    for name, start in (("a.html", "<!doctype html"), ("a.JSON", "{"), ("a.md", "# "), ("a", "# ")):
        written = run("report", str(report.parent), "--output", name, cwd=root)
        assert written.returncode == 0, written.stderr
        assert (root / name).read_text(encoding="utf-8").lower().startswith(start)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--victim", "robst"], "Unknown victim 'robst': did you mean robust"),
        (["--attack", "knokoff"], "Unknown attack 'knokoff': did you mean knockoff"),
        (["--dataset", "minst"], "did you mean mnist"),
        (["--model", "resnet21"], "Unknown model 'resnet21'"),
        (["--model", "vgg16"], "takes images of at least 32×32 pixels"),
        (["--budget", "0"], "positive numbers of queries, got 0"),
        (["--budget", "200,100"], "ascending"),
        (["--budget", "many"], "'many' is not a whole number"),
        (["--budget", "999999"], "beyond the query pool"),
        (["--attack", "dfme", "--budget", "895"], "One step of attack 'dfme' asks 896 queries, more than the budget"),
        (["--attack", "knockoff:recovery=average,repeats=8", "--budget", "7", "--defence", "random"], "asks 8 queries"),
        (["--attack", "fee"], "'fee' works only on two-layer ReLU networks, and small-cnn is none: train"),
        (["--answers", "labels"], "expected soft, hard, or top-K such as top-3, got 'labels'"),
        (["--epsilon", "8"], "units of [0, 1] pixels"),
        (["--device", "cuda:99"], "was asked for and torch finds no GPU"),
        (["--device", "tpu"], "Unknown device 'tpu'"),
        (["--dataset", "mnist", "--data-root", "."], "add --download"),
        (["--dataset", "npz:nothing.npz"], "There is no file"),
        (["--config", "nothing.yaml"], "cannot be read"),
        (["--fooo"], "No such option"),  # click's versions go on in different ways
        (["--seeds", "x"], "'--seeds'"),
        (["--seeds", "auto"], "and here is none"),
        (["--seeds", "2", "--max-seeds", "9"], "max_seeds: expected with seeds: auto alone, got seeds 2"),
        (["surplus"], "unexpected extra argument"),
        (["--defence", "heurstic"], "Unknown defence 'heurstic': did you mean heuristic?"),
        (["--defence", "heuristic:l1=3"], "'l1' parameter of defence 'heuristic' must be a float in (0, 2]"),
        (["--defence", "mad:epsilon=-1"], "'epsilon' parameter of defence 'mad' must be"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    if "cuda:99" in arguments:
        import torch

        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
    done = run("evaluate", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir() if path.name != "cache"] == []


def test_help_is_lazy(root: Path) -> None:
    code = (
        "import sys\nfrom art_divqat.cli import main\nsys.argv=['art-divqat','evaluate','--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'art', 'torchvision', 'sklearn', 'scipy', 'matplotlib', 'numpy'} & set(sys.modules)\n"
        "print('HEAVY', sorted(heavy))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert "HEAVY []" in done.stdout
    assert "--victim" in done.stdout


@pytest.mark.parametrize(
    "kind", ["datasets", "pools", "models", "victims", "attacks", "recoveries", "defences", "presets"]
)
def test_list(root: Path, kind: str) -> None:
    done = run("list", kind, cwd=root)
    assert done.returncode == 0, done.stderr
    assert all(len(line.split(None, 1)) == 2 for line in done.stdout.splitlines())


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize(("jobs", "number"), [("1", signal.SIGINT), ("2", signal.SIGINT), ("2", signal.SIGTERM)])
def test_a_signal_keeps_what_is_finished(tmp_path: Path, config: Path, jobs: str, number: int) -> None:
    command = [sys.executable, "-m", "art_divqat", "evaluate", "--victim", "standard", "--seeds", "40"]
    command += ["--config", str(config), "--limit", "100", "--model", "lenet5", "--jobs", jobs, "--output", "run"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell that runs the tests in the background has them ignore Ctrl-C, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    journal = tmp_path / "run" / "journal.jsonl"
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not (journal.is_file() and journal.read_bytes().count(b"\n") >= 2):
        time.sleep(0.1)
        if process.poll() is not None:
            break
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert stderr == "art-divqat: Interrupted. What was finished is kept: the same command goes on from there.\n"
    assert not (tmp_path / "run" / "results.json").exists()


def test_a_folder_that_cannot_be_written(tmp_path: Path, config: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("evaluate", *TINY, "--config", str(config), "--output", "file/run", cwd=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
