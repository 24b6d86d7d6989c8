"""Environment record: versions, hardware and settings of a run, needed to repeat it.

Versions are read from metadata; nothing is imported.
"""

from __future__ import annotations

import os
import platform
from importlib import metadata
from typing import Any

from art_divqat._version import __version__
from art_divqat.errors import UserError
from art_divqat.registry import plugin_distributions

# of others; numbers depend on their versions
PACKAGES = (
    "adversarial-robustness-toolbox",
    "torch",
    "torchvision",
    "torchattacks",
    "torchao",
    "numpy",
    "scipy",
    "scikit-learn",
)
# what torch chooses its kernels by: with other ones sums differ, and without VNNI int8 activations have 7 bits
_INSTRUCTIONS = frozenset(
    [
        "avx2",
        "avx512f",
        "avx512_bf16",
        "avx512_vnni",
        "avx_vnni",
        "amx_bf16",
        "amx_int8",
        "asimd",
        "asimddp",
        "i8mm",
        "sve",
    ]
)


def tool() -> dict[str, str]:
    """Name and version of this program."""
    return {"name": "art-divqat", "version": __version__}


def environment(device: str) -> dict[str, Any]:
    """Python, platform, processor, its instruction sets and the versions that numbers depend on."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    versions.update(plugin_distributions())
    cpu = _first_cpu()
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "instructions": sorted(_INSTRUCTIONS & set((cpu.get("flags") or cpu.get("Features") or "").split())),
        "cores": os.cpu_count(),
        "device": device,
        "packages": versions,
    }


def _first_cpu() -> dict[str, str]:
    """What /proc/cpuinfo says of the first CPU; nothing where there is no such file."""
    fields: dict[str, str] = {}
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            for line in file:
                name, _, value = line.partition(":")
                fields.setdefault(name.strip(), value.strip())
    except OSError:
        return {}
    return fields


def resolve_device(requested: str, share: float | None = None) -> str:
    """`cpu`, or `cuda:i` if it is there; `auto` takes the first GPU if there is one.

    :param share: of a GPU that an engine of several machines gives a cell, whatever is here; None for cells that run
        here.
    :raises UserError: for any other name, a GPU that is not there or that no cell has a share of, or a share without a
        GPU.

    >>> resolve_device("cpu"), resolve_device("auto", 0), resolve_device("auto", 0.5)
    ('cpu', 'cpu', 'cuda:0')
    """
    if share is not None:
        return _of_engine(requested, share)
    if requested == "cpu":
        return requested
    if requested != "auto" and requested.partition(":")[0] != "cuda":
        raise UserError(f"Unknown device {requested!r}: expected auto, cpu, cuda or cuda:i.")
    if requested == "auto" and not _looks_like_gpu():
        # importing torch to learn that there is no GPU would cost seconds
        return "cpu"
    import torch

    count = torch.cuda.device_count()
    if requested == "auto":
        return "cuda:0" if count else "cpu"
    if count == 0:
        raise UserError(f"Device {requested!r} was asked for and torch finds no GPU here: use --device cpu.")
    number = requested.partition(":")[2] or "0"
    if not number.isdigit() or int(number) >= count:
        raise UserError(
            f"Device {requested!r} is not one of the {count} GPUs here: expected cuda:0 to cuda:{count - 1}."
        )
    return f"cuda:{int(number)}"


def _of_engine(requested: str, share: float) -> str:
    kind = requested.partition(":")[0]
    if kind not in ("auto", "cpu", "cuda"):
        raise UserError(f"Unknown device {requested!r}: expected auto, cpu, cuda or cuda:i.")
    if kind == "cuda" and not share:
        raise UserError(
            f"Device {requested!r} was asked for and no GPU of the engine's: give --gpus-per-cell, such as 1 or 0.5."
        )
    if kind == "cpu" and share:
        raise UserError(f"Device 'cpu' uses no GPU and --gpus-per-cell asks for {share:g}: leave one of them out.")
    # an engine shows a worker the GPU that it has for it, as the only one
    return "cuda:0" if share else "cpu"


def _looks_like_gpu() -> bool:
    return any(os.path.exists(path) for path in ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia")) or (  # noqa: PTH110
        platform.system() == "Windows"
    )
