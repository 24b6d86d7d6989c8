"""Exported graphs: batch norm and dropout that keep their numbers and obey the mode, and are folded with them.

torchao rewrites both by patterns that hold ε 1e-5, momentum .1 and dropout .5 whatever the network says. Here the
arguments of the nodes themselves are set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.utils.fusion import fuse_conv_bn_weights

_aten = torch.ops.aten
_DROPOUTS = (
    _aten.dropout.default,
    _aten.dropout_.default,
    _aten.feature_dropout.default,
    _aten.feature_dropout_.default,
    _aten.alpha_dropout.default,
    _aten.alpha_dropout_.default,
    _aten.feature_alpha_dropout.default,
    _aten.feature_alpha_dropout_.default,
)
_BATCH_NORM = _aten.batch_norm.default
# the same operation under a name that torchao does not look for
_HIDDEN = _aten.batch_norm
_MEAN, _VARIANCE, _TRAINING, _MOMENTUM, _EPSILON = 3, 4, 5, 6, 7
_TORCHAO_EPSILON = 1e-5


@dataclass(frozen=True)
class Norm:
    """What a batch norm says: its ε and momentum, and whether it is a module and obeys the mode."""

    epsilon: float
    momentum: float
    obeys_mode: bool


def obeys_mode(module: nn.Module) -> bool:
    """Whether a module is a batch norm or a dropout of torch itself, whose mode an exported graph can still change."""
    return isinstance(module, (_BatchNorm, _DropoutNd)) and type(module).__module__.startswith("torch.nn.")


def separate_calls(exported: Any) -> None:
    """Make each call of a module that is called twice one of its own, with the same parameters.

    The quantizer takes the calls of one name for one call with two outputs, and refuses: torchvision's residual blocks
    call one ReLU twice. It does so too where a batch norm's second count of batches reads the first.
    """
    for node in list(exported.graph.nodes):
        # torch tells the calls apart in the keys alone
        node.meta["nn_module_stack"] = {
            key: (f"{name}@{number}" if (number := key.partition("@")[2]) else name, kind)
            for key, (name, kind) in node.meta.get("nn_module_stack", {}).items()
        }
        if node.target is _aten.add_.Tensor and node.args[0].op == "get_attr":
            node.replace_all_uses_with(node.args[0])
    exported.recompile()


def spell_out_norms(exported: Any) -> None:
    """Give each batch norm without weight and bias ones and zeros, which the patterns that fold it read."""
    for number, node in enumerate(_batch_norms(exported)):
        for position, name, value in ((1, "weight", torch.ones_like), (2, "bias", torch.zeros_like)):
            if node.args[position] is None:
                exported.register_buffer(f"norm_{name}_{number}", value(_tensor(exported, node.args[_VARIANCE])))
                with exported.graph.inserting_before(node):
                    constant = exported.graph.get_attr(f"norm_{name}_{number}")
                constant.meta = dict(node.args[_VARIANCE].meta)
                node.update_arg(position, constant)
    exported.recompile()


def read_norms(exported: Any) -> dict[str, Norm]:
    """The batch norms of a freshly exported graph by the name of their running mean."""
    found: dict[str, Norm] = {}
    for node in _batch_norms(exported):
        norm = Norm(float(node.args[_EPSILON]), float(node.args[_MOMENTUM]), bool(node.args[_TRAINING]))
        name = str(node.args[_MEAN].target)
        # one running mean under two modes: the frozen one wins, or eval would move it
        found[name] = replace(norm, obeys_mode=norm.obeys_mode and found.get(name, norm).obeys_mode)
    return found


def drop_idle_dropout(exported: Any) -> None:
    """Delete the dropouts that were traced in eval mode, so that no later change of mode wakes them."""
    for node in list(exported.graph.nodes):
        if node.op == "call_function" and node.target in _DROPOUTS and node.args[2] is False:
            node.replace_all_uses_with(node.args[0])
            exported.graph.erase_node(node)
    exported.recompile()


def restore_norms(prepared: Any, norms: dict[str, Norm]) -> None:
    """Put ε and momentum back into the nodes that a pattern has replaced."""
    for node in _batch_norms(prepared):
        norm = norms.get(str(node.args[_MEAN].target))
        if norm is not None:
            node.update_arg(_MOMENTUM, norm.momentum)
            _set_epsilon(node, _TORCHAO_EPSILON, norm.epsilon)
    prepared.recompile()


def rewrite_mode(prepared: Any, norms: dict[str, Norm], training: bool) -> None:
    """Set every dropout, and every batch norm that obeys the mode, to train or eval."""
    for node in prepared.graph.nodes:
        if node.op == "call_function" and node.target in _DROPOUTS:
            node.update_arg(2, training)
    for node in _batch_norms(prepared):
        norm = norms.get(str(node.args[_MEAN].target))
        node.update_arg(_TRAINING, training and (norm is None or norm.obeys_mode))
    prepared.recompile()


def fold_norms(prepared: Any) -> None:
    """Fold each batch norm behind a convolution into it: w·γ/√(v + ε), β − m·γ/√(v + ε).

    torchao would do so by exporting a hundred patterns, which takes minutes, knows one ε, and folds twice into a weight
    that two calls share. A folded weight is a new parameter here, and batch norms that stay are hidden from torchao.
    """
    graph = prepared.graph
    for node in list(graph.nodes):
        if node.target is _aten.add_.Tensor and str(node.args[0].target).endswith("num_batches_tracked"):
            graph.erase_node(node)
    for number, norm in enumerate(_batch_norms(prepared)):
        found = _convolution_of(norm)
        if found is None:
            continue
        convolution, scaled, bias = found
        weight, *rest = (_tensor(prepared, node) for node in (scaled.args[0], bias, *norm.args[3:5], *norm.args[1:3]))
        transpose = "transpose" in str(convolution.target)
        folded = fuse_conv_bn_weights(
            weight, rest[0], rest[1], rest[2], norm.args[_EPSILON], rest[3], rest[4], transpose=transpose
        )
        for node, name, value in zip((scaled, convolution), ("weight", "bias"), folded, strict=True):
            prepared.register_parameter(f"folded_{name}_{number}", value)
            with graph.inserting_before(node):
                constant = graph.get_attr(f"folded_{name}_{number}")
            if node is scaled:
                constant.meta = dict(scaled.args[0].meta)
                scaled.replace_all_uses_with(constant)
            else:
                convolution.args = (*convolution.args[:2], constant, *convolution.args[3:])
        norm.replace_all_uses_with(convolution)
        graph.erase_node(norm)
    for norm in _batch_norms(prepared):
        norm.target = _HIDDEN
    graph.eliminate_dead_code()
    prepared.recompile()


def show_norms(converted: Any) -> None:
    """Undo the hiding of :func:`fold_norms`."""
    for node in converted.graph.nodes:
        if node.target is _HIDDEN:
            node.target = _BATCH_NORM
    converted.recompile()


def _convolution_of(norm: Any) -> tuple[Any, Any, Any] | None:
    """The convolution, its weight as scaled by γ/√(v + ε), and its bias, of a batch norm in torchao's QAT pattern."""
    before, bias = norm.args[0], None
    if before.target is _aten.add.Tensor:
        before, bias = before.args[0], before.args[1].args[0]
    if before.target is not _aten.div.Tensor or "conv" not in str(before.args[0].target):
        return None
    convolution = before.args[0]
    scaled = convolution.args[1]
    if scaled.op == "call_module":
        scaled = scaled.args[0]
    return convolution, scaled, bias


def _tensor(network: Any, node: Any) -> Any:
    if node is None:
        return None
    folder, _, leaf = node.target.rpartition(".")
    return getattr(network.get_submodule(folder), leaf)


def drop_unused(network: Any) -> None:
    """Delete the parameters and buffers that the graph no longer reads: the float weights stay behind otherwise."""
    used = {node.target for node in network.graph.nodes if node.op == "get_attr"}
    for name in [name for name, _ in (*network.named_parameters(), *network.named_buffers()) if name not in used]:
        folder, _, leaf = name.rpartition(".")
        delattr(network.get_submodule(folder), leaf)


def _set_epsilon(norm: Any, old: float, new: float) -> None:
    """In the node itself, and where its pattern computes √(variance + ε)."""
    norm.update_arg(_EPSILON, new)
    for user in list(norm.args[_VARIANCE].users):
        if user.target is _aten.add.Tensor and user.args[1] == old:
            user.update_arg(1, new)


def _batch_norms(network: Any) -> list[Any]:
    """Nodes of batch norms that have running statistics."""
    return [
        node
        for node in network.graph.nodes
        if node.target is _BATCH_NORM and getattr(node.args[_MEAN], "op", None) == "get_attr"
    ]
