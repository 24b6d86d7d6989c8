"""Plain layers: timm's networks made of torch's own layers, which every quantization backend traces and fuses.

Two of timm's layers are no function of tensors that a tracer could write down: the convolution that pads as TensorFlow
does computes its padding from the size of the image, and batch norm with its activation in one is taken for neither.
The images of a network have one size here, so that the padding is a number.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from art_divqat._types import Shape


class _InPlaceOf(nn.Sequential):
    """Layers that stand for one of the library's, with the names of its tensors in state dicts.

    :param keeper: which of the layers has the tensors.
    """

    def __init__(self, keeper: int, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self._keeper = f"{keeper}."

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        found = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
        inner = prefix + self._keeper
        for name in [name for name in found if name.startswith(inner)]:
            found[prefix + name[len(inner) :]] = found.pop(name)
        return found

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        inner = prefix + self._keeper
        for name in [name for name in state_dict if name.startswith(prefix) and "." not in name[len(prefix) :]]:
            state_dict[inner + name[len(prefix) :]] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)  # type: ignore[no-untyped-call]


def with_plain_layers(network: nn.Module, input_shape: Shape) -> nn.Module:
    """The network with timm's special layers replaced, for images of one size; its answers and tensors stay.

    :param network: of timm, on the CPU.
    :param input_shape: (channels, height, width) of its images.
    """
    from timm.layers import BatchNormAct2d, Conv2dSame

    sizes: dict[str, tuple[int, int]] = {}
    handles = []
    for name, module in network.named_modules():
        if type(module) is Conv2dSame:

            def note(_: nn.Module, inputs: tuple[Tensor, ...], name: str = name) -> None:
                sizes[name] = (int(inputs[0].shape[2]), int(inputs[0].shape[3]))

            handles.append(module.register_forward_pre_hook(note))
    if handles:
        with torch.no_grad():
            network.eval()(torch.zeros(1, *input_shape))
    for handle in handles:
        handle.remove()
    for name, module in list(network.named_modules()):
        if name in sizes:
            network.set_submodule(name, _padded(module, sizes[name]))
        elif type(module) is BatchNormAct2d:
            network.set_submodule(name, _in_turn(module))
    return network


def _padded(layer: Any, size: tuple[int, int]) -> nn.Module:
    from timm.layers import get_same_padding

    sides = zip(size, layer.kernel_size, layer.stride, layer.dilation, strict=True)
    down, across = (get_same_padding(*each) for each in sides)
    convolution = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        dilation=layer.dilation,
        groups=layer.groups,
        bias=layer.bias is not None,
        device="meta",
    )
    convolution.weight, convolution.bias = layer.weight, layer.bias
    if down == across == 0:
        return convolution
    padding = nn.ZeroPad2d((across // 2, across - across // 2, down // 2, down - down // 2))
    return _InPlaceOf(1, padding, convolution)


def _in_turn(layer: Any) -> nn.Module:
    norm = nn.BatchNorm2d(
        layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats, device="meta"
    )
    norm._parameters, norm._buffers = layer._parameters, layer._buffers
    after = [each for each in (layer.drop, layer.act) if type(each) is not nn.Identity]
    return _InPlaceOf(0, norm, *after)
