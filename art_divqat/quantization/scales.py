"""Scales: an int8 network rounds with the scales that its fake-quantized twin was trained with, and with no others."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def kernel_scale(quantizer: Any) -> tuple[Tensor, Tensor]:
    """Scale and zero point of a fused fake quantizer as its kernel chooses them from the range seen so far.

    torch's own answer divides the range of a weight by 127.5 where the kernel divides by 127 or 128, and torchao's has
    a lower bound that the kernel lacks. A network converted by them rounds one weight in six to another integer than
    the network that was trained.

    :param quantizer: a `FusedMovingAvgObsFakeQuantize` of torch or torchao.

    >>> from torch.ao.quantization import get_default_qat_qconfig_mapping
    >>> quantizer = get_default_qat_qconfig_mapping("x86").global_qconfig.weight()
    >>> _ = quantizer(torch.tensor([[1.27, -0.5], [0.5, -1.28]]))
    >>> kernel_scale(quantizer)[0].tolist() == quantizer.scale.tolist() != quantizer.calculate_qparams()[0].tolist()
    True
    """
    observer = quantizer.activation_post_process
    if observer.min_val.numel() == 0:
        found: tuple[Tensor, Tensor] = observer.calculate_qparams()
        return found
    shape = [1] * max(2, quantizer.ch_axis + 1)
    if quantizer.is_per_channel:
        shape[quantizer.ch_axis] = observer.min_val.numel()
    # it chooses the scale whatever the values are, and writes it into the quantizer
    torch.fused_moving_avg_obs_fake_quant(
        torch.zeros(shape, device=observer.min_val.device),
        torch.zeros_like(quantizer.observer_enabled),
        torch.ones_like(quantizer.fake_quant_enabled),
        observer.min_val,
        observer.max_val,
        quantizer.scale,
        quantizer.zero_point,
        observer.averaging_constant,
        observer.quant_min,
        observer.quant_max,
        quantizer.ch_axis,
        quantizer.is_per_channel,
        quantizer.is_symmetric_quant,
    )
    return quantizer.scale.detach().clone(), quantizer.zero_point.detach().long()


def use_kernel_scales(prepared: nn.Module, fused: type[nn.Module], exact: type[nn.Module]) -> None:
    """Make every fake quantizer of class `fused` one of `exact`, its subclass that answers with `kernel_scale`."""
    for module in prepared.modules():
        if type(module) is fused:
            module.__class__ = exact


def share_dropout_scales(prepared: Any) -> None:
    """Give the fake quantizer behind each dropout the scale of the one before it.

    In training they see different values. In evaluation a dropout passes its input on, and so does the int8 one, where
    a second scale would round, and cut off, once more.

    :param prepared: a graph whose fake quantizers are modules.
    """
    named = dict(prepared.named_modules(remove_duplicate=False))
    for node in prepared.graph.nodes:
        if node.op != "call_module" or not isinstance(named[node.target], nn.modules.dropout._DropoutNd):
            continue
        for user in node.users:
            before, after = named.get(node.args[0].target), named.get(user.target)
            if before is not None and after is not None and all(map(_is_quantizer, (before, after))):
                after.load_state_dict(before.state_dict())


def _is_quantizer(module: nn.Module) -> bool:
    return hasattr(module, "fake_quant_enabled")
