"""FX backend: torch's FX graph mode, with real int8 kernels on x86, fbgemm, onednn and qnnpack; torch alone."""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.instancenorm import _InstanceNorm

from art_divqat._rng import isolated_random_state
from art_divqat.errors import MissingExtraError, UserError
from art_divqat.quantization.backend import (
    FrozenNetwork,
    InputShape,
    QuantizationBackend,
    device_of,
    explain_untraceable,
    quiet_torch,
)
from art_divqat.quantization.engines import use_engine
from art_divqat.quantization.modes import check_eval_mode, spell_out_padding, traceable_copy
from art_divqat.quantization.scales import kernel_scale, share_dropout_scales, use_kernel_scales

try:
    with quiet_torch():
        from torch.ao import quantization as tq
        from torch.ao.quantization import quantize_fx
except ImportError as error:
    raise MissingExtraError(
        f"This torch ({torch.__version__}) has no FX graph mode quantization: use backend='pt2e' "
        "(pip install 'art-divqat[pt2e]'), or an older torch."
    ) from error

_REMEDY = (
    "Rewrite that line with tensor operations (torch.where instead of if, sizes fixed instead of read from values), "
    "move it out of the network, or try backend='pt2e'."
)
# Left in float32: prepared for training, torch keeps their weights in float, so that the converted network is another
# one; and its int8 kernel gives what happens to lie in memory for a kernel of 2×2 and 16 channels (torch 2.14).
_FLOAT_OPERATIONS = (
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.functional.conv_transpose1d, nn.functional.conv_transpose2d, nn.functional.conv_transpose3d),
)
# the module of all operations that give int8 values by a scale of their own
_INT8_OPERATIONS = torch.ops.quantized.add.__module__


class Backend(QuantizationBackend):
    """FX graph mode: `torch.ao.quantization.quantize_fx`.

    >>> network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    >>> backend = Backend()
    >>> prepared = backend.prepare(network, (1, 8, 8))
    >>> backend.calibrate(prepared, [torch.rand(4, 1, 8, 8)])
    >>> backend.convert(prepared)(torch.rand(3, 1, 8, 8)).shape
    torch.Size([3, 2, 6, 6])
    """

    name: ClassVar[str] = "fx"

    def prepare(self, network: nn.Module, input_shape: InputShape) -> nn.Module:
        device = device_of(network)
        check_eval_mode(network, input_shape, device)
        copied = traceable_copy(network, _is_leaf)
        for name, module in copied.named_modules():
            if isinstance(module, _ConvNd):
                _check_padding(name, module)
                spell_out_padding(name, module)
            elif type(module) is nn.PReLU:
                module.__class__ = _FloatPReLU
            elif isinstance(module, _InstanceNorm) and module.track_running_stats:
                module.__class__ = _FrozenInstanceNorm
        example = torch.zeros(2, *input_shape, device=device)
        with self._room(), explain_untraceable(self.name, network, _REMEDY, example=example):
            prepared: nn.Module = quantize_fx.prepare_qat_fx(copied, self._qconfig_mapping(), (example,))
        _keep_running_statistics(prepared)
        _spell_out_sizes(prepared)
        use_kernel_scales(prepared, tq.FusedMovingAvgObsFakeQuantize, _FakeQuantize)
        return prepared.train()

    def freeze(self, prepared: nn.Module) -> FrozenNetwork:
        frozen = super().freeze(prepared)
        share_dropout_scales(frozen.network)
        return frozen

    def set_mode(self, prepared: nn.Module, *, training: bool, observe: bool, fake_quantize: bool = True) -> None:
        prepared.train(training)
        prepared.apply(tq.enable_observer if observe else tq.disable_observer)
        prepared.apply(tq.enable_fake_quant if fake_quantize else tq.disable_fake_quant)

    def convert(self, prepared: nn.Module) -> nn.Module:
        with self._room(), explain_untraceable(self.name, prepared, _REMEDY, "convert"):
            network: Any = quantize_fx.convert_fx(self._frozen_copy(prepared))
        for node in list(network.graph.nodes):
            # An annotation copied from the user's forward, such as `x: Tensor`, names a type that TorchScript would
            # look up in vain in the generated code.
            node.type = None
            if node.target in ("mean", torch.mean):
                _take_dense_images(network.graph, node)
            if self.reduce_range:
                _keep_seven_bits(network, node)
        network.recompile()
        return network.eval()

    def reference(self, prepared: nn.Module) -> nn.Module:
        with self._room():
            network: nn.Module = quantize_fx._convert_to_reference_decomposed_fx(self._frozen_copy(prepared))
        return network.eval()

    @property
    def kernels(self) -> str:
        return "int8"

    @contextlib.contextmanager
    def _room(self) -> Iterator[None]:
        """No warnings, the engine set, the random state safe from the initialisers of modules that are swapped."""
        with quiet_torch(), isolated_random_state("fx"), use_engine(self.torch_engine):
            yield

    def _frozen_copy(self, prepared: nn.Module) -> Any:
        copied = copy.deepcopy(prepared).cpu()
        self.set_mode(copied, training=False, observe=False)
        share_dropout_scales(copied)
        _separate_calls(copied)
        return copied

    def _qconfig_mapping(self) -> Any:
        """The QAT mapping of the engine (the PTQ one has observers where fake quantizers are needed), range set."""
        mapping = tq.get_default_qat_qconfig_mapping(self.torch_engine)
        default: Any = mapping.global_qconfig
        activation = tq.FusedMovingAvgObsFakeQuantize.with_args(
            observer=tq.MovingAverageMinMaxObserver, quant_min=0, quant_max=255, reduce_range=self.reduce_range
        )
        mapping.set_global(tq.QConfig(activation=activation, weight=default.weight))
        for pattern, qconfig in list(mapping.object_type_qconfigs.items()):
            if qconfig is not None and qconfig.activation is default.activation:
                mapping.set_object_type(pattern, tq.QConfig(activation=activation, weight=qconfig.weight))
        for operation in _FLOAT_OPERATIONS:
            mapping.set_object_type(operation, None)
        return mapping


class _FakeQuantize(tq.FusedMovingAvgObsFakeQuantize):
    calculate_qparams = kernel_scale


class _FloatPReLU(nn.PReLU):
    """Traced into, and so left in float32: torch's int8 kernel answers a negative x with x."""


class _FrozenInstanceNorm(nn.InstanceNorm2d):
    """Traced into, and so in float32 with the running statistics that it came with; see below."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


def _keep_running_statistics(prepared: Any) -> None:
    """Make an instance norm by running statistics the batch norm that it is: its int8 kernel takes the image's own."""
    for node in prepared.graph.nodes:
        if node.target is nn.functional.instance_norm:
            call = inspect.signature(nn.functional.instance_norm).bind(*node.args, **node.kwargs)
            call.apply_defaults()
            if not call.arguments["use_input_stats"]:
                node.target = nn.functional.batch_norm
                names = ("input", "running_mean", "running_var", "weight", "bias")
                node.args = tuple(call.arguments[name] for name in names)
                node.kwargs = {"eps": call.arguments["eps"]}
    prepared.recompile()


def _check_padding(name: str, convolution: _ConvNd) -> None:
    """Refuse what the int8 kernels lack.

    :raises UserError: naming the module.
    """
    if convolution.padding_mode != "zeros":
        raise UserError(
            f"Module {name!r} ({type(convolution).__name__}) has padding_mode={convolution.padding_mode!r}, which int8 "
            "convolutions lack: put a padding module (nn.ZeroPad2d, nn.CircularPad2d, nn.ReflectionPad2d) before it, "
            "or use backend='pt2e'."
        )


def _spell_out_sizes(prepared: Any) -> None:
    """Give convolutions that are called as functions all of their arguments, sizes as one number a side.

    The int8 kernels know no defaults.

    :raises UserError: for images given by name, and padding="same"; before training, which conversion comes after.
    """
    defaults = {"input": None, "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
    sides = {torch.conv1d: 1, torch.conv2d: 2, torch.conv3d: 3}
    for node in prepared.graph.nodes:
        if node.target in (*sides, nn.functional.linear) and "input" in node.kwargs:
            raise UserError(f"{_called(node)} is given its images by name, input=…: give them first, without the name.")
        if node.target in sides:
            given = {**defaults, **dict(zip(defaults, node.args, strict=False)), **node.kwargs}
            for name in ("stride", "padding", "dilation"):
                value = 0 if given[name] == "valid" else given[name]
                given[name] = (value,) * sides[node.target] if isinstance(value, int) else value
                if isinstance(value, str):
                    raise UserError(f"{_called(node)} has {name}={value!r}: give it as a number, or use nn.Conv2d.")
            node.args, node.kwargs = tuple(given.values()), {}
    prepared.recompile()


def _called(node: Any) -> str:
    """`The function conv2d in module 'features.3'`, of a node of the user's network."""
    path = next(reversed(node.meta.get("nn_module_stack", {}) or [""]))
    return f"The function {node.target.__name__}{f' in module {path!r}' if path else ' in forward'}"


def _take_dense_images(graph: Any, mean: Any) -> None:
    """Copy the images of a mean, in the usual order, where it drops dimensions.

    The int8 kernel gives its answer its input's format, and channels last needs four dimensions. Images of a single
    pixel are of both orders, so that `contiguous` would leave them as they are.
    """
    position, keyword = mean.args[2:3], mean.kwargs.get("keepdim", False)
    if mean.args and not any((*position, keyword)):
        with graph.inserting_before(mean):
            order = {"memory_format": torch.contiguous_format}
            mean.update_arg(0, graph.call_method("clone", (mean.args[0],), order))


def _separate_calls(frozen: Any) -> None:
    """Make each further call of a module one of a copy: an int8 module has one scale for all its answers."""
    called: set[str] = set()
    for node in frozen.graph.nodes:
        if node.op != "call_module" or node.target not in called:
            called.add(str(node.target))
            continue
        module = frozen.get_submodule(node.target)
        if hasattr(module, "weight"):
            name = f"{node.target}_call_{node.name}".replace(".", "_")
            frozen.add_submodule(name, copy.deepcopy(module))
            node.target = name
    frozen.recompile()


def _keep_seven_bits(network: Any, node: Any) -> None:
    """Clamp what a node gives at 127, as its twin does: int8 kernels clamp at 255.

    Above 127 the kernels that need a reduced range add up wrongly, by several steps and without a word.
    """
    if node.op == "call_module":
        module = network.get_submodule(node.target)
        scale, zero_point = getattr(module, "scale", None), getattr(module, "zero_point", None)
    elif node.target is torch.quantize_per_tensor or getattr(node.target, "__module__", "") == _INT8_OPERATIONS:
        names = [str(each.target) for each in node.args if getattr(each, "op", None) == "get_attr"][-2:]
        scale, zero_point = (getattr(network, name) for name in names) if len(names) == 2 else (None, None)
    else:
        return
    if scale is None or zero_point is None:
        return
    low, high = (float(scale) * (level - int(zero_point)) for level in (0, 127))
    with network.graph.inserting_after(node):
        clamped = network.graph.call_function(torch.ops.quantized.clamp, (node, low, high))
    node.replace_all_uses_with(clamped, delete_user_cb=lambda user: user is not clamped)


def _is_leaf(module: nn.Module) -> bool:
    """Whether the tracer keeps a module as it is, so that its mode can still be set."""
    return type(module).__module__.startswith("torch.nn.") and not isinstance(module, nn.Sequential)
