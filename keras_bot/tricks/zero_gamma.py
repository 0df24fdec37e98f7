"""Zero gamma: every residual block starts as the identity (section 3.1).

What: initialize gamma = 0 in the last batch normalization of each residual branch. Each block then returns its
    shortcut, so the network is effectively shallower at first and easier to train; gamma grows during training.
Equation: block(x) = shortcut(x) + gamma * norm(f(x)) + beta, with gamma = beta = 0 at the start.
Shapes and dtypes: gamma (channels,), in the variable's own dtype.
The paper's value: on for all residual blocks.
Interactions: `NAG` with decayed_variables="kernels" doesn't decay gamma. Apply `zero_gamma` before the first step, not
    to trained weights. `models.create_model(…, zero_gamma=True)` gives the same weights, but through gamma's
    initializer, so that the configuration, and with it every clone, has zero gamma too. A branch with an activation or
    a convolution after its last batch normalization is skipped: with gamma = beta = 0 the input of a ReLU is 0, its
    gradient is 0, and the branch would never train.
Reference: Goyal et al., arXiv 1706.02677, section 5.1; He et al., CVPR 2019, section 3.1.

Blocks are found from the graph. At an addition, the branch of each input tensor consists of the nodes that only this
tensor depends on. The branch with the fewest kernels is the shortcut: empty for an identity, usually one convolution
for a projection. Branches with more kernels are residual. Between the batch normalization and the addition, only linear
operations without weights (dropout, average pooling, padding, …) are allowed, and multiplication by a gate that is
nonzero at input 0, as in squeeze-and-excitation. Linearity is tested on random inputs, which covers custom layers.
"""

import warnings
from collections.abc import Iterable, Mapping

import keras
import numpy as np
from keras import ops


class ZeroedNorms(list):
    """List of the batch normalization layers that `zero_gamma` changed, from input to output.

    Attributes:
        skipped: reasons for skipping the other residual branches, keyed by the name of the branch's addition.
    """

    def __init__(
        self, norms: Iterable[keras.layers.BatchNormalization] = (), skipped: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(norms)
        self.skipped: dict[str, str] = dict(skipped or {})


def zero_gamma(model: keras.Model) -> ZeroedNorms:
    """Sets gamma = 0 in the last batch normalization of every residual branch that remains trainable.

    Args:
        model: any functional Keras model, including nested functional models.

    Returns:
        The layers whose gamma is now 0, from input to output. The attribute `skipped` contains the branches that
        were left unchanged, with reasons. A warning lists them too.

    Raises:
        ValueError: if the model isn't functional or no branch qualifies; the message includes the reasons.
    """
    zeroed = ZeroedNorms()
    for addition, norms, obstacle in _branches(model):
        if obstacle:
            zeroed.skipped[addition] = obstacle
        zeroed.extend(norm for norm in norms if norm not in zeroed and not obstacle)
    reasons = "; ".join(f"the branch at {name!r} {reason}" for name, reason in zeroed.skipped.items())
    if not zeroed:
        raise ValueError(
            f"{model.name!r} has no residual branch that ends in a BatchNormalization with gamma, followed only by "
            f"linear layers{': ' if reasons else ''}{reasons}."
        )
    if reasons:
        warnings.warn(f"zero_gamma set {len(zeroed)} layers of {model.name!r} and skipped: {reasons}.", stacklevel=2)
    for norm in zeroed:
        norm.gamma.assign(ops.zeros(norm.gamma.shape))
    return zeroed


def _branches(model):
    """Yields (addition name, last norms, obstacle or "") for each residual branch, in graph order."""
    if not getattr(model, "outputs", None):
        raise ValueError(f"model must be a functional model, received {model!r}.")
    blocks: set[int] = set()  # ids of the additions that close a block
    for node in _graph(model.outputs):
        operation = node.operation
        if _is_functional(operation):
            yield from _branches(operation)
        elif _adds(node):
            found = _residual_branches(node.input_tensors)
            if not found:
                yield operation.name, [], "adds paths with equally many kernels, so none of them is the shortcut"
            for tensor, branch in found or ():
                # A branch that contains whole blocks is the top-down path of a feature pyramid.
                if not blocks & branch.keys():
                    blocks.add(id(node))
                    yield operation.name, *_closing_norms(tensor, branch)


def _residual_branches(tensors):
    """Returns (tensor, own nodes by id) of each path into an addition that has more own kernels than the shortcut.

    A node or kernel is a path's own if no other path shares it. Returns None if no path has its own kernel, and [] if
    all paths have equally many.
    """
    graphs = [{id(node): node for node in _graph([tensor])} for tensor in tensors]
    own = []
    for place, nodes in enumerate(graphs):
        others = set().union(*(graph.keys() for i, graph in enumerate(graphs) if i != place))
        own.append({key: node for key, node in nodes.items() if key not in others})
    kernels = [_kernels(nodes.values()) for nodes in own]
    if not any(kernels):
        return None
    return [pair[:2] for pair in zip(tensors, own, kernels, strict=True) if pair[2] > min(kernels)]


def _closing_norms(tensor, branch):
    """Returns the norms that `tensor` is a linear function of, and the obstacle to setting their gamma, or ""."""
    node = _node(tensor)
    operation = node.operation
    if id(node) not in branch:
        return [], f"adds the output of {_describe(operation)} unchanged"
    if isinstance(operation, keras.layers.BatchNormalization):
        if operation.gamma is not None and not (operation.trainable and operation.gamma.trainable):
            return [], f"ends in {_describe(operation)}, which is frozen"
        if len(operation._inbound_nodes) > 1:
            return [], f"ends in {_describe(operation)}, which is used more than once"
        return (
            ([operation], "") if operation.gamma is not None else ([], f"ends in {_describe(operation)} without gamma")
        )
    if _is_functional(operation):
        inner = operation.outputs
        return _closing_norms(inner[tensor._keras_history.tensor_index], {id(n): n for n in _graph(inner)})
    if getattr(operation, "weights", None):
        return [], f"ends in {_describe(operation)}"
    if (gated := _gated_input(node)) is not None:
        return _closing_norms(gated, branch)
    if not _is_linear(node):
        return [], f"ends in {_describe(operation)}, which is not linear"
    found = [_closing_norms(source, branch) for source in node.input_tensors]
    return [norm for norms, _ in found for norm in norms], next((why for _, why in found if why), "")


def _gated_input(node):
    """Returns the gated input if `node` multiplies a tensor by a gate, else None."""
    if type(node.operation).__name__ != "Multiply" or len(node.input_tensors) != 2:
        return None
    for tensor, gate in (node.input_tensors, node.input_tensors[::-1]):
        if gate is not tensor and _is_open(gate):
            return tensor
    return None


def _is_open(tensor):
    """Returns whether `tensor` is the output of an activation that is nonzero at 0, such as the sigmoid."""
    node = _node(tensor)
    operation = node.operation
    if not getattr(operation, "weights", None):
        if not node.input_tensors:
            return False
        if _is_linear(node):
            return all(map(_is_open, node.input_tensors))
        values = _outputs(node, 0.0)
    else:
        activation = getattr(operation, "activation", None)
        values = [ops.convert_to_numpy(activation(ops.zeros((1, 1))))] if activation else []
    return bool(values) and all(np.all(value != 0) for value in values)


def _is_linear(node):
    """Tests on random inputs whether an operation without weights is jointly linear in its tensors."""
    once, twice, negated = (_outputs(node, scale) for scale in (1.0, 2.0, -1.0))
    if not once or not twice or not negated:
        return False
    for one, two, minus in zip(once, twice, negated, strict=True):
        tolerance = 1e-2 * np.abs(two).max()
        if not tolerance > 0 or np.abs(two - 2 * one).max() > tolerance or np.abs(minus + one).max() > tolerance:
            return False
    return True


def _outputs(node, scale):
    """Returns the float64 outputs of an operation on `scale` times fixed random inputs; [] if the call fails."""
    draw = np.random.default_rng(0)
    values = {}
    for tensor in node.input_tensors:
        shape = [side or (16 if axis else 2) for axis, side in enumerate(tensor.shape)]
        values[id(tensor)] = ops.cast(scale * 10 * draw.normal(size=shape), tensor.dtype)
    try:
        args, kwargs = node.arguments.fill_in(values)
        outputs = keras.tree.flatten(node.operation(*args, **kwargs))
        return [ops.convert_to_numpy(output).astype("float64") for output in outputs]
    except Exception:  # arbitrary layers may reject these inputs
        return []


def _describe(operation):
    return f"{type(operation).__name__} {operation.name!r}"


def _graph(tensors):
    """Returns the nodes that `tensors` depend on, in topological order."""
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


def _adds(node):
    # `keras.layers.Add` and the operation of `a + b` and `keras.ops.add` have the same class name.
    return type(node.operation).__name__ == "Add" and len(node.input_tensors) > 1


def _kernels(nodes):
    return sum(len(v.shape) >= 2 for node in nodes for v in getattr(node.operation, "weights", ()))


def _is_functional(operation):
    return isinstance(operation, keras.Model) and bool(getattr(operation, "outputs", None))
