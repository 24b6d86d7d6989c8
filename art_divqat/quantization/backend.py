"""Protocol of a quantization backend: prepare, calibrate, freeze, convert, describe."""

from __future__ import annotations

import abc
import contextlib
import copy
import importlib
import io
import logging
import traceback
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from art_divqat._files import first_line
from art_divqat._rng import isolated_random_state
from art_divqat._validation import check_bool, check_choice
from art_divqat.errors import UserError
from art_divqat.quantization._names import BACKENDS, RUNTIMES
from art_divqat.quantization.engines import check_engine, needs_reduced_range
from art_divqat.quantization.user_code import LineWatch, describe_line, user_frame

InputShape = tuple[int, ...]


@dataclass(frozen=True)
class QuantizationDescription:
    """What an int8 network is: its backend, engine, bits, and size.

    :param engine: what answers: one of torch's engines, or the runtime `onnxruntime` or `openvino`.
    :param kernels: `int8` if the network runs integer kernels, `reference` if it computes the same numbers in float32
        between quantize and dequantize operations, to be lowered by the runtime it is exported to.
    :param activation_bits: 8, or 7 where the engine would overflow on this CPU.
    :param bytes: size of the serialized state, in bytes.
    """

    backend: str
    engine: str
    kernels: str
    weight_bits: int
    activation_bits: int
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The same as a JSON-able dictionary."""
        return asdict(self)


class FrozenNetwork(nn.Module):
    """A network that stays in eval mode whatever is called on it, with parameters that take no gradient.

    ART puts its models in train mode for some calls, and an exported graph raises or ignores it after a deep copy;
    either would make predictions depend on the batch. Gradients with respect to the input still flow.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self.training = False

    def train(self, mode: bool = True) -> FrozenNetwork:
        """Do nothing: a frozen network has one mode."""
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class QuantizationBackend(abc.ABC):
    """Prepare for QAT, calibrate for PTQ, freeze observers and batch norm, convert to int8, describe.

    :param engine: what answers: one of :func:`supported_engines`, or a runtime (`onnxruntime`, `openvino`) that runs an
        ONNX file of the same network; None takes the best of torch's that this CPU has.
    :param reduce_range: keep activations within 7 bits; None decides by the engine and the CPU.
    :raises UserError: for an engine this CPU lacks.
    :raises MissingExtraError: for a runtime that is not installed.
    """

    name: ClassVar[str]

    def __init__(self, engine: str | None = None, reduce_range: bool | None = None) -> None:
        self.engine = check_engine(engine)
        # what the int8 network is made for, and what a runtime is compared with
        self.torch_engine = check_engine(None) if self.engine in RUNTIMES else self.engine
        if reduce_range is None:
            reduce_range = needs_reduced_range(self.engine)
        self.reduce_range = check_bool(self, "reduce_range", reduce_range)

    @abc.abstractmethod
    def prepare(self, network: nn.Module, input_shape: InputShape) -> nn.Module:
        """A fake-quantized copy of `network` in train mode with moving observers; `network` itself is not changed.

        The copy has parameters of its own: an optimizer on those of `network` would train nothing.

        :param input_shape: (channels, height, width).
        :raises UserError: if the network cannot be traced; the message names the operation and what to do.
        """

    @abc.abstractmethod
    def set_mode(self, prepared: nn.Module, *, training: bool, observe: bool, fake_quantize: bool = True) -> None:
        """Set batch norm and dropout to train or eval, and the observers and fake quantizers on or off."""

    @abc.abstractmethod
    def convert(self, prepared: nn.Module) -> nn.Module:
        """torch's int8 network on the CPU of a prepared one, which is not changed."""

    @abc.abstractmethod
    def reference(self, prepared: nn.Module) -> nn.Module:
        """The same arithmetic as a graph of quantize and dequantize operations that torch can export to ONNX."""

    @property
    @abc.abstractmethod
    def kernels(self) -> str:
        """`int8` or `reference`; see :class:`QuantizationDescription`."""

    def calibrate(self, prepared: nn.Module, batches: Iterable[Tensor]) -> None:
        """Let the observers of a prepared network see `batches` in eval mode, unquantized (post-training quantization).

        The ranges are moving averages of the minima and maxima of the batches, so that a few large ones do.

        :raises UserError: without a single batch.
        """
        self.set_mode(prepared, training=False, observe=True, fake_quantize=False)
        seen = 0
        with torch.no_grad():
            for batch in batches:
                prepared(batch)
                seen += 1
        if seen == 0:
            raise UserError("Calibration needs at least one batch of images. Got none.")
        self.set_mode(prepared, training=False, observe=False)

    def freeze(self, prepared: nn.Module) -> FrozenNetwork:
        """The twin of the int8 network: a copy of a prepared one, observers, batch norm and parameters frozen."""
        frozen = copy.deepcopy(prepared)
        self.set_mode(frozen, training=False, observe=False)
        return FrozenNetwork(frozen)

    def describe(self, int8_network: nn.Module) -> QuantizationDescription:
        """Backend, engine, bits and size of a converted network."""
        return QuantizationDescription(
            backend=self.name,
            engine=self.engine,
            kernels=self.kernels,
            weight_bits=8,
            activation_bits=7 if self.reduce_range else 8,
            bytes=serialized_bytes(int8_network),
        )


def get_backend(name: str, engine: str | None = None, reduce_range: bool | None = None) -> QuantizationBackend:
    """The backend called `name`: `fx` (torch alone, the default everywhere) or `pt2e` (extra `pt2e`).

    :raises UserError: for an unknown name or an engine this CPU lacks.
    :raises MissingExtraError: if this torch, or the environment, lacks the library behind the backend or the engine.

    >>> get_backend("fx").name
    'fx'
    """
    check_choice("get_backend", "name", name, BACKENDS)
    module = importlib.import_module(f"art_divqat.quantization.{name}")
    backend: QuantizationBackend = module.Backend(engine, reduce_range)
    return backend


def serialized_bytes(network: nn.Module) -> int:
    """Size of the network's serialized state, in bytes; packed int8 weights count as what they take.

    >>> 400 < serialized_bytes(nn.Linear(10, 10)) < 4000
    True
    """
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    return buffer.tell()


_NOISY = ("torch.utils._pytree", "torch.fx.experimental.symbolic_shapes", "torch.onnx")


@contextlib.contextmanager
def quiet_torch() -> Iterator[None]:
    """Silence, in this block only, torch's logs of its own tracing and exporting, and all warnings.

    Among them: that torch.ao.quantization will move to torchao.
    """
    loggers = [logging.getLogger(name) for name in _NOISY]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def device_of(network: nn.Module) -> torch.device:
    """Where a network lies; the CPU for one without parameters."""
    parameter = next(network.parameters(), None)
    return torch.device("cpu") if parameter is None else parameter.device


@contextlib.contextmanager
def explain_untraceable(
    backend: str, network: nn.Module, remedy: str, verb: str = "trace", example: Tensor | None = None
) -> Iterator[None]:
    """Turn whatever a tracer raises into one sentence that names the user's line, or the module where there is none.

    :param remedy: what to do about a line of the user's, where another backend may do with it as it is.
    :param example: images, to see whether the line reads a value of theirs, with which no backend can do.
    """
    try:
        # torch prints the whole graph of an export that fails
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    except Exception as error:
        # the traceback starts in this block: who called prepare is not in it
        line = describe_line(user_frame(traceback.extract_tb(error.__traceback__)))
        if not line:
            other = next(name for name in BACKENDS if name != backend)
            remedy = f"Use another module in its place, or try backend={other!r}."
            if "Constraints violated (batch)" in str(error):
                remedy = (
                    "It asks for the number of images (len(x), a loop over them, if): neither backend can trace that."
                )
        elif example is not None and _reads_images(network, example, line):
            remedy = (
                "It depends on values in the images, which no backend can trace: rewrite it with torch.where (or "
                "torch.cond, with backend='pt2e'), or move it out of the network."
            )
        reason = first_line(error)[:200].rstrip(".")
        where = line or _module_path(error)
        raise UserError(
            f"Backend {backend!r} cannot {verb} {type(network).__name__}{where}: {reason}. {remedy}"
        ) from error


def _reads_images(network: nn.Module, images: Tensor, line: str) -> bool:
    """Whether a line of the network reads a value into Python that fx, which has no images, cannot know either."""
    copied = copy.deepcopy(network).eval()
    with torch.no_grad(), isolated_random_state("value"), LineWatch() as watch, contextlib.suppress(Exception):
        copied(images)
    if line not in watch.values:
        return False
    try:
        torch.fx.Tracer().trace(copied)
    except Exception:
        # whatever a tracer raises
        return True
    return False


def _module_path(error: Exception) -> str:
    """` in module 'features.3' (ConvTranspose2d)`, from the frames of the tracer; empty if they name none."""
    found = ""
    step = error.__traceback__
    while step is not None:
        values = step.tb_frame.f_locals
        target: Any = values.get("n") or values.get("node")
        modules: Any = values.get("named_modules") or values.get("modules")
        if getattr(target, "op", None) == "call_module" and isinstance(modules, dict) and target.target in modules:
            found = f" in module {target.target!r} ({type(modules[target.target]).__name__})"
        step = step.tb_next
    return found
