"""A small member of each of torchvision's families of classifiers, images for it, and its multiply-adds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def _member(name: str, size: int = 64, **options: Any) -> tuple[int, Callable[[int], nn.Module]]:
    def build(classes: int) -> nn.Module:
        from torchvision.models import get_model

        network: nn.Module = get_model(name, weights=None, num_classes=classes, **options)
        return network

    return size, build


# The side of the images is 64, or the least that the family takes.
FAMILIES: dict[str, tuple[int, Callable[[int], nn.Module]]] = {
    "alexnet": _member("alexnet"),
    "vgg11": _member("vgg11"),
    "resnet18": _member("resnet18"),
    "densenet121": _member("densenet121"),
    "squeezenet1_0": _member("squeezenet1_0"),
    "googlenet": _member("googlenet", init_weights=False),
    # its auxiliary head asks for 299×299
    "inception_v3": _member("inception_v3", 75, init_weights=False, aux_logits=False),
    "mobilenet_v2": _member("mobilenet_v2"),
    "mobilenet_v3_small": _member("mobilenet_v3_small"),
    "shufflenet_v2_x0_5": _member("shufflenet_v2_x0_5"),
    "mnasnet0_5": _member("mnasnet0_5"),
    "efficientnet_b0": _member("efficientnet_b0"),
    "efficientnet_v2_s": _member("efficientnet_v2_s"),
    "regnet_y_400mf": _member("regnet_y_400mf"),
    "convnext_tiny": _member("convnext_tiny"),
    "vit_b_16": _member("vit_b_16", image_size=64),
    "swin_t": _member("swin_t"),
    "maxvit_t": _member("maxvit_t", 224, input_size=(224, 224)),
}


def synthetic_images(n: int, size: int, classes: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Stripes in noise, whose width says the class; the same each time."""
    random = np.random.default_rng(0)
    labels = random.integers(classes, size=n)
    rows = np.arange(size)[None, :] // (2 + 3 * labels[:, None]) % 2
    noise = random.random((n, 3, size, size))
    return (0.5 * noise + 0.5 * rows[:, None, :, None]).astype(np.float32), labels


def multiply_adds(network: nn.Module, shape: tuple[int, ...]) -> float:
    """Of convolutions, linear layers and products of matrices, for one image."""
    was = network.training
    torch.backends.mha.set_fastpath_enabled(False)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *shape))
    network.train(was)
    return counter.get_total_flops() / 2


def int8_multiply_adds(network: Any, shape: tuple[int, ...]) -> float:
    """Those of :func:`multiply_adds` that a converted network does with int8 inputs and int8 weights."""
    counter = _Counter(network)
    counter.run(torch.zeros(1, *shape))
    return counter.total


class _Counter(torch.fx.Interpreter):
    """Runs a converted graph and adds up its int8 products."""

    total = 0.0

    def run_node(self, n: torch.fx.Node) -> Any:
        answer = super().run_node(n)
        if n.op == "call_module":
            module = self.fetch_attr(str(n.target))
            if "quantized" in type(module).__module__ and callable(getattr(module, "weight", None)):
                self.total += answer.numel() * module.weight()[0].numel()
        elif n.op == "call_function" and n.target in (torch.ops.aten.conv2d.default, torch.ops.aten.linear.default):
            source, weight = n.args[0], n.args[1]
            if _is_dequantized(source) and _is_dequantized(weight):
                self.total += answer.numel() * self.env[weight][0].numel()
        elif n.op == "call_function" and n.target in (torch.ops.quantized.linear, torch.ops.quantized.matmul):
            self.total += answer.numel() * self.env[n.args[0]].shape[-1]  # type: ignore[index]
        return answer


def _is_dequantized(node: Any) -> bool:
    """Whether the values of a node come out of int8, looking through what only moves them."""
    while isinstance(node, torch.fx.Node) and str(node.target).startswith(
        ("aten.permute", "aten.view", "aten.flatten")
    ):
        node = node.args[0]
    return "dequantize" in str(getattr(node, "target", ""))
