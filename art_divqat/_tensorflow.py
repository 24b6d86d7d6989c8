"""TensorFlow in the process: keep Triton, which torch loads on the way, from ending it."""

from __future__ import annotations

import sys


def keep_triton_out() -> None:
    """Hide Triton from torch where TensorFlow is loaded and Triton is not; torch does without it on a CPU.

    Both bring an LLVM of their own, and importing Triton 3 after TensorFlow 2.21 is a segmentation fault. torch does so
    when the first optimizer is built. With a GPU in use nothing is hidden: torch may need it there.
    """
    if "tensorflow" not in sys.modules or "triton" in sys.modules:
        return
    import torch

    if not torch.cuda.is_available():
        sys.modules["triton"] = None  # type: ignore[assignment]
