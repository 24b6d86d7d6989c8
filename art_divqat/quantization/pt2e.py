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
from torch.nn.modules.conv import _ConvNd

from art_divqat._rng import isolated_random_state
from art_divqat.errors import MissingExtraError
from art_divqat.quantization._names import PT2E_EXTRA, RUNTIMES
from art_divqat.quantization.backend import (
    InputShape,
    QuantizationBackend,
    device_of,
    explain_untraceable,
    quiet_torch,
)
from art_divqat.quantization.exported_graph import (
    drop_idle_dropout,
    drop_unused,
    fold_norms,
    obeys_mode,
    read_norms,
    restore_norms,
    rewrite_mode,
    separate_calls,
    show_norms,
    spell_out_norms,
)
from art_divqat.quantization.modes import check_eval_mode, spell_out_padding, traceable_copy
from art_divqat.quantization.scales import kernel_scale, use_kernel_scales

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


_NORMS = "art_divqat.norms"


class _FakeQuantize(pt2e.FusedMovingAvgObsFakeQuantize):  # type: ignore[misc]
    calculate_qparams = kernel_scale


class Backend(QuantizationBackend):
    """PT2 export quantization: `torchao.quantization.pt2e` with the quantizer for x86 CPUs."""

    name: ClassVar[str] = "pt2e"

    def prepare(self, network: nn.Module, input_shape: InputShape) -> nn.Module:
        device = device_of(network)
        check_eval_mode(network, input_shape, device)
        copied = traceable_copy(network, obeys_mode)
        for name, module in copied.named_modules():
            if isinstance(module, _ConvNd):
                spell_out_padding(name, module)
        example = torch.zeros(2, *input_shape, device=device)
        # Without a dynamic batch the graph would take batches of two and nothing else.
        batch = torch.export.Dim("batch", min=1)
        with (
            quiet_torch(),
            isolated_random_state("pt2e"),
            explain_untraceable(self.name, network, _REMEDY, example=example),
        ):
            exported = torch.export.export(copied, (example,), dynamic_shapes=({0: batch},)).module()
            norms = read_norms(exported)
            drop_idle_dropout(exported)
            separate_calls(exported)
            spell_out_norms(exported)
            config = x86.get_default_x86_inductor_quantization_config(is_qat=True, reduce_range=self.reduce_range)
            graph: Any = prepare_qat_pt2e(exported, x86.X86InductorQuantizer().set_global(config))
        use_kernel_scales(graph, pt2e.FusedMovingAvgObsFakeQuantize, _FakeQuantize)
        restore_norms(graph, norms)
        graph.meta[_NORMS] = norms
        prepared: nn.Module = graph
        self.set_mode(prepared, training=True, observe=True)
        return prepared

    def set_mode(self, prepared: nn.Module, *, training: bool, observe: bool, fake_quantize: bool = True) -> None:
        # train() and eval() raise on an exported graph, and are silently lost in a deep copy of one that allows
        # them: its batch norm would stay in train mode. Rewriting the graph itself always holds.
        graph: Any = prepared
        rewrite_mode(graph, graph.meta[_NORMS], training)
        prepared.apply(pt2e.enable_observer if observe else pt2e.disable_observer)
        prepared.apply(pt2e.enable_fake_quant if fake_quantize else pt2e.disable_fake_quant)

    def convert(self, prepared: nn.Module) -> nn.Module:
        copied = copy.deepcopy(prepared).cpu()
        self.set_mode(copied, training=False, observe=False)
        fold_norms(copied)
        with (
            quiet_torch(),
            isolated_random_state("pt2e"),
            explain_untraceable(self.name, prepared, _REMEDY, "convert"),
        ):
            network: nn.Module = convert_pt2e(copied)
        show_norms(network)
        drop_unused(network)
        return network

    def reference(self, prepared: nn.Module) -> nn.Module:
        return self.convert(prepared)

    @property
    def kernels(self) -> str:
        return "int8" if self.engine in RUNTIMES else "reference"
