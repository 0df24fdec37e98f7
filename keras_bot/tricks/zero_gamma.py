"""Zero gamma: every residual block starts as the identity (section 3.1).

What: set gamma = 0 in the batch normalization that closes each residual branch. A block then returns its
    shortcut, the net is shallow at first and easier to train; gamma grows as training wants it.
Equation: block(x) = shortcut(x) + gamma * norm(f(x)) + beta, with gamma = beta = 0 at the start.
Shapes and dtypes: gamma (channels,), in the variable's own dtype.
The paper's value: on for all residual blocks.
Interactions: `NAG` with decay="kernels" leaves gamma free to grow. Do it before the first step, and not to
    trained weights. Pre-activation nets close a branch with a convolution and have nothing to set.
Reference: Goyal et al., arXiv 1706.02677, section 5.1; He et al., CVPR 2019, section 3.1.

Blocks are found by structure. At an addition of two tensors, whatever only one of them depends on is that
one's branch. The branch with more kernels is the residual one, the other is the shortcut: empty for the
identity, a convolution or so for a projection.
"""

import keras
from keras import ops

from keras_bot.tricks.no_bias_decay import is_kernel


def zero_gamma(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Sets gamma = 0 in the last batch normalization of every residual branch.

    Args:
        model: any functional Keras model; blocks inside nested functional models are found as well.

    Returns:
        The layers that it set, from the input to the output.

    Raises:
        ValueError: if the model isn't functional or has no such layer.
    """
    norms = list(dict.fromkeys(_closing_norms(model)))
    if not norms:
        raise ValueError(
            f"Expected residual branches that end in a BatchNormalization with a gamma, found none in {model.name!r}."
        )
    for norm in norms:
        norm.gamma.assign(ops.zeros(norm.gamma.shape))
    return norms


def _closing_norms(model):
    """The normalizations that close the residual branches of `model`, in the order of the graph."""
    if not getattr(model, "outputs", None):
        raise ValueError(f"Expected a functional model, received {model!r}.")
    blocks = set()  # the additions that close a block, by id
    for node in _graph(model.outputs):
        operation = node.operation
        if _is_functional(operation):
            yield from _closing_norms(operation)
        elif _adds_two(node):
            for tensor, shortcut in (node.input_tensors, node.input_tensors[::-1]):
                branch = _residual_branch(tensor, shortcut, blocks)
                if branch:
                    blocks.add(id(node))
                    yield from _last_norms(tensor, branch)


def _residual_branch(tensor, shortcut, blocks):
    """The nodes by id that `tensor` alone depends on, if they are a residual branch beside `shortcut`, else {}.

    A branch that holds whole residual blocks is none: it is the deep path of a feature pyramid.
    """
    nodes, others = ({id(n): n for n in _graph([t])} for t in (tensor, shortcut))
    own = {key: node for key, node in nodes.items() if key not in others}
    if _kernels(own.values()) <= _kernels(n for key, n in others.items() if key not in nodes):
        return {}
    return {} if blocks & own.keys() else own


def _last_norms(end, branch):
    """The first normalizations met on the way back from the branch's end, past layers without weights."""
    pending, seen = [end], set()
    while pending:
        node = _node(pending.pop())
        if id(node) not in branch or id(node) in seen:
            continue
        seen.add(id(node))
        operation = node.operation
        if isinstance(operation, keras.layers.BatchNormalization):
            if operation.gamma is not None:
                yield operation
        elif _is_functional(operation):
            inner = operation.outputs
            yield from _last_norms(inner[0], {id(n): n for n in _graph(inner)})
        elif not getattr(operation, "weights", None):
            pending.extend(node.input_tensors)


def _graph(tensors):
    """The nodes that `tensors` depend on, inputs before what is made of them."""
    ordered, pending, seen = [], [(_node(t), False) for t in tensors], set()
    while pending:
        node, is_done = pending.pop()
        if is_done:
            ordered.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            pending.append((node, True))
            pending.extend((_node(t), False) for t in node.input_tensors)
    return ordered


def _node(tensor):
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]


def _adds_two(node):
    # The layer `keras.layers.Add` and the operation behind `a + b` and `keras.ops.add` share this class name.
    return type(node.operation).__name__ == "Add" and len(node.input_tensors) == 2


def _kernels(nodes):
    return sum(is_kernel(v) for node in nodes for v in getattr(node.operation, "weights", ()))


def _is_functional(operation):
    return isinstance(operation, keras.Model) and bool(getattr(operation, "outputs", None))
