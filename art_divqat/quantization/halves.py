"""A prepared or an int8 network in two halves, cut where one tensor holds all that the rest needs: body and head."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from art_divqat.errors import UserError

_aten = torch.ops.aten
_WEIGHTED = {
    functional.linear,
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
    _aten.linear.default,
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.convolution.default,
}
# Between these and the output is too little for a mixture of two images to be told from either.
HEAD_LAYERS = 2


class Halves:
    """The body and the head of a prepared network f, or of an int8 one: f(x) = head(body(x)).

    Both share its modules and parameters: what trains one trains f. The cut is the last place with at least two layers
    with weights after it through which everything passes: in a classifier that ends in one linear layer that lies
    before the last block of convolutions, in one with a hidden layer before that layer.

    The halves are of the mode that the network is in; see :meth:`follow`.

    :param prepared: of :meth:`~art_divqat.quantization.QuantizationBackend.prepare`, or of
        :meth:`~art_divqat.quantization.QuantizationBackend.convert`.
    :param layers: how many layers with weights the head has at least.
    :raises UserError: for a network that has no such place, or is no graph of torch's.

    >>> from art_divqat.quantization import get_backend
    >>> head = nn.Linear(144, 8), nn.ReLU(), nn.Linear(8, 2)
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), *head)
    >>> prepared = get_backend("fx").prepare(network, (1, 8, 8)).eval()
    >>> halves, x = Halves(prepared), torch.rand(3, 1, 8, 8)
    >>> halves.body(x).shape, torch.equal(halves.head(halves.body(x)), prepared(x))
    (torch.Size([3, 144]), True)
    """

    def __init__(self, prepared: nn.Module, layers: int = HEAD_LAYERS) -> None:
        self._prepared: Any = prepared
        self._layers = layers
        self._of: dict[bool, tuple[nn.Module, nn.Module]] = {}
        self.body, self.head = self._cut()

    def follow(self, *, training: bool) -> None:
        """Take the graph as it is now that the network was set to a mode; one that is exported was rewritten for it."""
        if training not in self._of:
            self._of[training] = self._cut()
        self.body, self.head = self._of[training]

    def _cut(self) -> tuple[nn.Module, nn.Module]:
        if not isinstance(self._prepared, fx.GraphModule):
            raise UserError("The network answers in a runtime of its own, where it is in one piece.")
        cut = _last_cut(self._prepared, self._layers)
        return _half(self._prepared, cut, first=True), _half(self._prepared, cut, first=False)


def digest_of(half: nn.Module) -> str:
    """A hash of what a half computes: its graph, and its weights, ranges and scales.

    >>> from art_divqat.quantization import get_backend
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(144, 8), nn.Linear(8, 2))
    >>> halves = Halves(get_backend("fx").prepare(network, (1, 8, 8)).eval())
    >>> digest_of(halves.body) == digest_of(halves.body), digest_of(halves.body) == digest_of(halves.head)
    (True, False)
    """
    return hashlib.sha256(f"{getattr(half, 'code', '')}{state_digest(half.state_dict())}".encode()).hexdigest()


def state_digest(state: Mapping[str, Any]) -> str:
    """A hash of a network's state, or of tensors by name."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(name.encode())
        for part in _parts(value):
            digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    """The bytes of a part of a network's state; int8 layers have weights with scales, and pairs of them and a bias."""
    if isinstance(value, (tuple, list)):
        for each in value:
            yield from _parts(each)
    elif not isinstance(value, torch.Tensor):
        yield repr(value).encode()
    elif not value.is_quantized:
        yield str(value.dtype).encode()
        # a copy: what numpy has seen of a tensor cannot be resized any more, as observers do
        yield value.detach().cpu().clone(memory_format=torch.contiguous_format).numpy().tobytes()
    elif value.qscheme() == torch.per_tensor_affine:
        yield repr((value.q_scale(), value.q_zero_point())).encode()
        yield from _parts(value.int_repr())
    else:
        yield from _parts((value.q_per_channel_scales(), value.q_per_channel_zero_points(), value.int_repr()))


def _last_cut(prepared: Any, layers: int) -> fx.Node:
    nodes = list(prepared.graph.nodes)
    moving = _of_the_image(nodes)
    after = 0
    alive: set[fx.Node] = set()  # of the image, made before a place and used after it
    for node in reversed(nodes):
        alive.discard(node)
        value = node in moving and node.users and node.op != "placeholder" and not _is_batch_size(node)
        if value and after >= layers and not alive and not any(_in_place(user, prepared) for user in node.users):
            return node
        alive |= {each for each in node.all_input_nodes if each in moving and not _is_batch_size(each)}
        after += node in moving and _has_weights(node, prepared)
    raise UserError(
        f"The network has no place with {layers} layers after it through which everything passes, where features could "
        "be mixed or kept: train all of it, without alpha_mixtures."
    )


def _of_the_image(nodes: list[fx.Node]) -> set[fx.Node]:
    """Nodes whose value depends on the images."""
    moving: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or (node.op != "output" and any(each in moving for each in node.all_input_nodes)):
            moving.add(node)
    return moving


def _half(prepared: Any, cut: fx.Node, *, first: bool) -> fx.GraphModule:
    nodes = list(prepared.graph.nodes)
    moving = _of_the_image(nodes)
    position = nodes.index(cut)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def copied(node: fx.Node) -> fx.Node:
        """The copy of a value; of the parameters it is made when first asked for."""
        if node not in copies:
            if node in moving and _is_batch_size(node):
                copies[node] = graph.call_function(_aten.sym_size.int, (start, 0))
            else:
                copies[node] = graph.node_copy(node, copied)
        return copies[node]

    if not first:
        start = copies[cut] = graph.placeholder("features")
    for node in nodes[: position + 1] if first else nodes[position + 1 :]:
        if node.op == "output":
            (value,) = node.args
            if isinstance(value, (tuple, list)):
                (value,) = value
            graph.output(fx.node.map_arg(value, copied))
        elif node in moving and node.users and (first or not _is_batch_size(node)):
            copies[node] = graph.node_copy(node, copied)
    if first:
        graph.output(copies[cut])
    return fx.GraphModule(prepared, graph)


def _is_batch_size(node: fx.Node) -> bool:
    return node.target is _aten.sym_size.int


def _has_weights(node: fx.Node, prepared: Any) -> bool:
    if node.op == "call_module":
        module = prepared.get_submodule(str(node.target))
        # int8 layers have no parameters, and methods that unpack the weight
        return callable(getattr(module, "weight", None)) or any(each.ndim > 1 for each in module.parameters())
    return node.op == "call_function" and node.target in _WEIGHTED


def _in_place(node: fx.Node, prepared: Any) -> bool:
    """Whether a node writes over what it is given."""
    if node.op == "call_module":
        return bool(getattr(prepared.get_submodule(str(node.target)), "inplace", False))
    name = str(getattr(node.target, "__name__", node.target)).partition(".")[0]
    return bool(node.kwargs.get("inplace", False)) or (name.endswith("_") and not name.endswith("__"))
