"""PT2E backend: torchao's export-based quantization, whose quantize and dequantize operations ONNX and compilers read.

A converted graph holds int8 weights and computes exactly the numbers of int8 arithmetic, but in float32 between its
quantize and dequantize operations: it is as small as an int8 network and slower than one until a runtime
(onnxruntime, torch.compile) fuses the operations. Where speed on the CPU matters, use the `fx` backend.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import nn

from art_divqat._rng import isolated_random_state
from art_divqat.errors import MissingExtraError
from art_divqat.quantization._names import PT2E_EXTRA
from art_divqat.quantization.backend import (
    InputShape,
    QuantizationBackend,
    explain_untraceable,
    quiet_torch,
)

try:
    with quiet_torch():
        from torchao.quantization import pt2e
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
        from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86
except ImportError as error:
    raise MissingExtraError(PT2E_EXTRA) from error

_REMEDY = (
    "Rewrite that line with tensor operations (torch.where or torch.cond instead of if), move it out of the network, "
    "or try backend='fx'."
)


class Backend(QuantizationBackend):
    """PT2 export quantization: `torchao.quantization.pt2e` with the quantizer for x86 CPUs."""

    name: ClassVar[str] = "pt2e"

    def prepare(self, network: nn.Module, input_shape: InputShape) -> nn.Module:
        parameter = next(network.parameters(), None)
        example = torch.zeros(2, *input_shape, device=None if parameter is None else parameter.device)
        # Without a dynamic batch the graph would take batches of two and nothing else.
        batch = torch.export.Dim("batch", min=1)
        with quiet_torch(), isolated_random_state("pt2e"), explain_untraceable(self.name, network, _REMEDY):
            exported = torch.export.export(
                copy.deepcopy(network).train(), (example,), dynamic_shapes=({0: batch},)
            ).module()
            _name_each_call(exported)
            config = x86.get_default_x86_inductor_quantization_config(is_qat=True, reduce_range=self.reduce_range)
            prepared: nn.Module = prepare_qat_pt2e(exported, x86.X86InductorQuantizer().set_global(config))
        self.set_mode(prepared, training=True, observe=True)
        return prepared

    def set_mode(self, prepared: nn.Module, *, training: bool, observe: bool, fake_quantize: bool = True) -> None:
        # train() and eval() raise on an exported graph, and are silently lost in a deep copy of one that allows
        # them: its batch norm would stay in train mode. Rewriting the graph itself always holds.
        with quiet_torch():
            if training:
                pt2e.move_exported_model_to_train(prepared)
            else:
                pt2e.move_exported_model_to_eval(prepared)
        prepared.apply(pt2e.enable_observer if observe else pt2e.disable_observer)
        prepared.apply(pt2e.enable_fake_quant if fake_quantize else pt2e.disable_fake_quant)

    def convert(self, prepared: nn.Module) -> nn.Module:
        copied = copy.deepcopy(prepared).cpu()
        self.set_mode(copied, training=False, observe=False)
        with quiet_torch(), isolated_random_state("pt2e"):
            network: nn.Module = convert_pt2e(copied)
        _drop_unused(network)
        return network

    def reference(self, prepared: nn.Module) -> nn.Module:
        return self.convert(prepared)

    @property
    def kernels(self) -> str:
        return "reference"


def _name_each_call(exported: Any) -> None:
    """Give each call of a module that is called twice a name of its own, which torch keeps in the stack's keys alone.

    The quantizer takes the calls of one name for one call with two outputs, and refuses: torchvision's residual blocks
    call one ReLU twice.
    """
    for node in exported.graph.nodes:
        stack = node.meta.get("nn_module_stack", {})
        node.meta["nn_module_stack"] = {
            key: (f"{name}@{number}" if (number := key.partition("@")[2]) else name, kind)
            for key, (name, kind) in stack.items()
        }


def _drop_unused(network: Any) -> None:
    """Delete the parameters and buffers that the graph no longer reads: the float weights stay behind otherwise."""
    used = {node.target for node in network.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*network.named_parameters(), *network.named_buffers()) if name not in used]:
        folder, _, leaf = name.rpartition(".")
        delattr(network.get_submodule(folder), leaf)
