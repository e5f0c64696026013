"""The tape: a Tensor remembers how it was made, and `grad` walks that memory backwards.

Take c = a * b. If L depends on c, and we know how L changes with c (call it c̄ = dL/dc), then the
chain rule says how L changes with a and with b:

    ā = c̄ b        b̄ = c̄ a

Such a rule, from the gradient of an output to the gradient of one input, is a *vjp* (it multiplies
a vector by the op's Jacobian). Every op hands its vjps to `record`, which keeps them in a Node (tape.py).
`grad` starts at the end, follows the nodes from the youngest to the oldest, calls each vjp once,
and adds up what arrives at the same place. That is all of backpropagation.

The vjps are themselves made of Tensor ops. So the backward walk can be recorded like any other
computation, and differentiated again, as often as you like (`create_graph=True`).

Read on with ops/elementwise.py, where the first ops are. How a Tensor resembles a NumPy array
(`shape`, `float(t)`, `repr`) is in arraylike.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, overload

import numpy as np

from . import backend as _backend
from . import errors
from .arraylike import ArrayLike
from .backend import Array
from .tape import Leaf, Node, Vjp, history, is_recording, leading_to, no_grad, observer, recording

__all__ = [
    "Leaf", "Node", "Tensor", "constant", "grad", "history", "is_recording", "no_grad", "record", "shortcut",
]  # fmt: skip

Edge = tuple["Tensor", Vjp]

_ndarray = np.ndarray


# ----------------------------------------------------------------------------------- record


def record(name: str, data: Array, *edges: Edge, broadcasts: bool = False, output: bool = False) -> Tensor:
    """Wrap `data`, the array that op `name` has just computed, and remember how to differentiate it.

    Each edge is (input, vjp): `vjp` takes the gradient of the output, a Tensor, and returns the
    gradient of that input, a Tensor made with Tensor ops. A vjp runs only if its input's gradient
    is wanted. A saved array may appear in a vjp only if it is piecewise constant (a mask, an
    index); anything smooth must be a Tensor, or the second derivative would silently be wrong.

    broadcasts: the op broadcasts its inputs, so where an input is smaller than the output, its
    gradient is summed to its shape. output: the vjps need the output, and are called as vjp(g, y).

    >>> def double(x):
    ...     return record("double", x.data * 2, (x, lambda g: g * 2))
    """
    if type(data) is _ndarray:
        data.setflags(False)  # type: ignore[call-arg]  # write=False: the tape may need it
    else:
        data = _backend.seal(data)
    node = None
    if is_recording():
        kept: list[tuple[Node, Vjp, int]] = []
        frozen: tuple[tuple[Leaf, int], ...] = ()
        for x, vjp in edges:
            if (parent := x.node) is not None:
                kept.append((parent, vjp, parent.version))
            elif x.leaf is not None:
                frozen = (*frozen, (x.leaf, x.leaf.version))
        if kept:
            node = Node(name, data.shape, data.dtype, kept, frozen, broadcasts, data if output else None)
    if (onlooker := observer()) is not None:
        onlooker.forward(name, data, [x for x, _ in edges])
    result = _new(Tensor)  # as in _wrap, without the cost of a call
    result._data = data
    result.node = node
    result.leaf = None
    return result


# --------------------------------------------------------------------------------- gradients


@overload
def grad(
    y: Tensor, xs: Tensor, grad_y: Any = None, *, create_graph: bool = False, unreachable: str = "none"
) -> Tensor: ...
@overload
def grad(
    y: Tensor,
    xs: Sequence[Tensor],
    grad_y: Any = None,
    *,
    create_graph: bool = False,
    unreachable: str = "none",
) -> list[Tensor]: ...
def grad(y, xs, grad_y=None, *, create_graph=False, unreachable="none"):
    """dL/dx for each x of `xs`, where dL/dy = grad_y (1 if y is a single number). Changes nothing.

    xs: a Tensor, or a list of them; they may be leaves or results of ops. create_graph: record the
    walk itself, so that the gradients can be differentiated again. unreachable: an x that y does
    not depend on gets None, or zeros if unreachable="zeros".

    >>> x = Tensor(3.0, requires_grad=True)
    >>> first = grad(x * x * x, x, create_graph=True)
    >>> float(first), float(grad(first, x))
    (27.0, 18.0)
    """
    if unreachable not in ("none", "zeros"):
        raise ValueError(f"grad: unreachable must be 'none' or 'zeros', not {unreachable!r}")
    wanted = [xs] if isinstance(xs, Tensor) else list(xs)
    if not isinstance(y, Tensor):
        raise TypeError(f"grad: y is a {type(y).__name__}, not a Tensor")
    for i, x in enumerate(wanted):
        if not isinstance(x, Tensor):
            raise TypeError(f"grad: xs[{i}] is a {type(x).__name__}, not a Tensor")
        if x.node is None:
            raise errors.not_required(i)
    if unreachable == "zeros" and y.node is None:
        found = {}
    else:
        found = _backpropagate(y, _seed(y, grad_y, "grad"), {x.node for x in wanted}, create_graph)
    gradients: list[Any] = []
    given: set[Node] = set()
    for x in wanted:
        g = found.get(x.node)
        if g is None and unreachable == "zeros":
            g = constant(_backend.xp_of(x._data).zeros(x.shape, x.dtype))
        elif g is not None and x.node in given:
            g = g.copy()  # the same x twice
        given.add(x.node)
        gradients.append(g)
    return gradients[0] if isinstance(xs, Tensor) else gradients


def _seed(y: Tensor, grad_y: Any, caller: str) -> Tensor:
    """What the walk starts with: the gradient the caller gave, or 1 if y is a single number."""
    if y.node is None:
        raise errors.no_history(caller)
    if grad_y is not None:
        return _gradient_for(y, grad_y, caller)
    if y.size != 1:
        raise errors.not_a_number(caller, y.shape)
    return constant(_backend.xp_of(y._data).ones(y.shape, y.dtype))


def _gradient_for(y: Tensor, g: Any, caller: str) -> Tensor:
    """A gradient that the caller gives, as a Tensor of y's shape, precision and backend."""
    g = g if isinstance(g, Tensor) else Tensor(g, backend=y.backend)
    if g.backend != y.backend:
        raise errors.two_backends(caller, y.backend, g.backend)
    if g.shape != y.shape:
        raise errors.wrong_shape(f"{caller}: a gradient of", g.shape, y.shape)
    return g if g.dtype == y.dtype else g.astype(y.dtype)


def _backpropagate(y: Any, seed: Tensor, wanted: set[Node] | None, create_graph: bool) -> dict:
    """{node: dL/dnode} for the nodes in `wanted` (None: all leaves), given seed = dL/dy."""
    order = history(y.node)
    useful = set(order) if wanted is None else leading_to(wanted, order)
    onlooker = observer()
    arrived: dict[Node, Tensor] = {y.node: seed}  # what has reached a node so far
    ours: set[Node] = set()  # nodes where that is a sum in memory that nobody else has seen
    result: dict[Node, Tensor] = {}
    token = recording.set(create_graph)
    if onlooker is not None:
        onlooker.walking(1)
    try:
        for node in order:
            g = arrived.pop(node, None)
            if g is None:
                continue  # nothing flowed here
            if node in ours:
                _backend.seal(g._data)
            if isinstance(node, Leaf) if wanted is None else node in wanted:
                result[node] = g
            for leaf, version in node.frozen:
                if leaf.version != version:
                    raise errors.changed(node.name, leaf.name, leaf.shape)
                if create_graph and leaf.active:
                    raise errors.thawed(node.name, leaf.name, leaf.shape)
            for parent, vjp, version in node.edges:
                if parent.version != version:
                    raise errors.changed(node.name, parent.name, parent.shape)
                if create_graph and not parent.active:
                    raise errors.thawed(node.name, parent.name, parent.shape)
                if parent not in useful:
                    continue
                part = _pull(node, vjp, g) if onlooker is None else onlooker.backward(node, vjp, g, _pull)
                array = part._data
                if array.shape != parent.shape or array.dtype is not parent.dtype:
                    part = _fitted(part, node, parent)
                if parent not in arrived:
                    arrived[parent] = part
                elif create_graph:
                    arrived[parent] = arrived[parent] + part
                elif parent in ours:
                    arrived[parent]._data += part._data
                else:
                    xp = _backend.xp_of(part._data)
                    memory = xp.empty_like(part._data)  # laid out as gradients of this parent are
                    arrived[parent] = _wrap(xp.add(arrived[parent]._data, part._data, out=memory))
                    ours.add(parent)
        return _unshared(result, seed)
    finally:
        recording.reset(token)
        if onlooker is not None:
            onlooker.walking(-1)


def _pull(node: Node, vjp: Vjp, g: Tensor) -> Tensor:
    part = vjp(g) if node.output is None else vjp(g, _wrap(node.output, node))
    if type(part) is not Tensor:
        raise errors.not_a_tensor(node.name, part)
    return part


def _fitted(part: Tensor, node: Node, parent: Node) -> Tensor:
    """A gradient in its input's shape and precision: summed if the op broadcasts, rounded if need be."""
    if part.shape != parent.shape:
        if not node.broadcasts:
            raise errors.bad_vjp_shape(node.name, parent.name, parent.shape, part.shape)
        part = part.sum_to(parent.shape)
    return part if part.dtype == parent.dtype else part.astype(parent.dtype)


def _unshared(gradients: dict[Node, Tensor], seed: Tensor) -> dict[Node, Tensor]:
    """Copy where two gradients, or a gradient and `seed`, would live in the same memory.

    An array with a `base` is a view of another, perhaps of one that is somebody's gradient too.
    """
    taken = {id(seed._data)}
    for node, g in gradients.items():
        if g._data.base is not None or id(g._data) in taken:
            gradients[node] = g = g.copy()
        taken.add(id(g._data))
    return gradients


# ------------------------------------------------------------------------------------ Tensor


class Tensor(ArrayLike):
    """An array that remembers how it was computed.

    data: a number, nested lists, or an array, which is copied (copy=False takes it over: nobody may
    write to it afterwards). requires_grad: make this a leaf, whose gradient can be asked for.
    backend: "numpy" or "cupy"; by default that of `data`. name: for pictures and messages.

    A Tensor never changes under the tape's feet. Its array is read-only, `t[i] = v` is refused, and
    a leaf takes a new value as a whole only: `leaf.data = array`, or what does the same (an optimiser's
    step, `module.to`). The leaf counts these changes, and `grad` through an older graph is an error.

    >>> w = Tensor([1.0, 2.0], requires_grad=True)
    >>> (w * w).sum().backward()
    >>> w.grad
    Tensor([2., 4.], dtype=float64, backend=numpy)
    """

    __slots__ = ("__weakref__", "_data", "leaf", "node")
    _data: Array
    node: Node | None  # where gradients go; None for a constant
    leaf: Leaf | None  # the same node on a leaf, kept while the leaf is frozen

    def __init__(
        self,
        data: Any,
        requires_grad: bool = False,
        *,
        dtype: Any = None,
        backend: str | None = None,
        copy: bool = True,
        name: str = "leaf",
    ):
        if isinstance(data, Tensor):
            if data.node is not None:
                raise TypeError("Tensor(t) would lose t's history; say so with Tensor(t.detach())")
            data = data._data
        home = _backend.get(backend) if backend else _backend.home_of(data)
        self._data = _backend.seal(_backend.asarray(data, home, dtype, copy))
        self.node = self.leaf = None
        if requires_grad:
            self._make_leaf(name, fixed=False)

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to this Tensor."""
        return self.node is not None

    def requires_grad_(self, flag: bool = True, *, name: str = "leaf") -> Tensor:
        """Make this a leaf (or, flag=False, freeze it: from now on ops take it for a constant).

        A constant that becomes a leaf late keeps its value: ops that have used it rely on that.
        """
        if self.node is not None and self.leaf is None:  # the result of an op
            if not flag:
                raise errors.not_a_leaf("requires_grad_(False)")
            return self
        if flag and self.leaf is None:
            self._make_leaf(name, fixed=True)
        self.node = self.leaf if flag else None
        if self.leaf is not None:
            self.leaf.active = flag
        return self

    def _make_leaf(self, name: str, fixed: bool) -> None:
        if self.dtype.kind != "f":
            raise errors.not_float(self.dtype)
        self.node = self.leaf = Leaf(name, self.shape, self.dtype, fixed)

    def backward(self, gradient: Any = None, *, create_graph: bool = False) -> None:
        """Add dL/dleaf to `.grad` of every leaf this was computed from, given dL/dself = gradient.

        A leaf that is frozen by now collects nothing, though it was none when this was computed.
        """
        seed = _seed(self, gradient, "backward")
        for leaf, g in _backpropagate(self, seed, None, create_graph).items():
            if leaf.active:
                leaf.grad = g if leaf.grad is None else leaf.grad + g

    @property
    def grad(self) -> Tensor | None:
        """What `backward` has added up here; None before, and on everything that is not a leaf."""
        return None if self.leaf is None else self.leaf.grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if self.leaf is None:
            raise errors.not_a_leaf("grad")
        self.leaf.grad = None if value is None else _gradient_for(self, value, "grad =")

    @property
    def data(self) -> Array:
        """The array, read-only. On a leaf it can be replaced: `w.data = w.data - rate * w.grad.data`.

        (`w.data -= ...` would write into the old array, and NumPy says "output array is read-only".)
        """
        return self._data

    @data.setter
    def data(self, value: Any) -> None:
        if self.leaf is None:
            raise errors.not_a_leaf("data =")
        if self.leaf.fixed:
            raise errors.late_leaf(self.leaf.name)
        new = _backend.asarray(value, _backend.backend_of(self._data), self.dtype)
        if new.shape != self.shape:
            raise errors.wrong_shape("data = an array of", new.shape, self.shape)
        if new.strides != self._data.strides:  # what uses this leaf may count on its order in memory
            given, new = new, _backend.xp_of(new).empty_like(self._data)
            new[...] = given
        self._live_in(new)

    def _live_in(self, array: Array) -> None:
        """Let `array` hold this leaf's value from now on; it may be of another backend or precision.

        Whoever writes to that memory later must raise `leaf.version`, and must be sure that nobody else
        has seen the old value and relies on it (see gpu/recorded_steps.py).
        """
        leaf = self.leaf
        assert leaf is not None and array.shape == self.shape
        self._data = _backend.seal(array)
        leaf.dtype = array.dtype
        leaf.version += 1

    def detach(self) -> Tensor:
        """The same value without its history: to the tape it is a constant."""
        return _wrap(self._data)

    def __reduce__(self) -> Any:
        """For copy and pickle: constants and leaves can be copied, the history of a result cannot."""
        if self.node is not None and self.leaf is None:
            raise TypeError("a Tensor with a history cannot be copied or pickled; .detach() it first")
        leaf = self.leaf
        return _restored, (self._data, leaf and (leaf.name, leaf.active, leaf.fixed, leaf.grad))

    def to(self, backend: str) -> Tensor:
        """This Tensor on another backend. Gradients flow back across."""
        here, there = self.backend, _backend.get(backend)
        if here == backend:
            return self if is_recording() else self.detach()
        data = there.from_numpy(_backend.to_numpy(self._data).copy("K"))
        return record("to", data, (self, lambda g: g.to(here)))


def _wrap(data: Array, node: Node | None = None) -> Tensor:
    """A Tensor around an array that is sealed already: no copy, no checks."""
    t = _new(Tensor)
    t._data = data
    t.node = node
    t.leaf = None
    return t


_new = Tensor.__new__


def _restored(data: Array, leaf: tuple[str, bool, bool, Tensor | None] | None) -> Tensor:
    t = Tensor(data)
    if leaf is not None:
        name, active, fixed, gradient = leaf
        t._make_leaf(name, fixed)
        t.grad = gradient
        t.requires_grad_(active)
    return t


def shortcut(formula: Callable[[], Tensor], fast: Callable[[], Array]) -> Tensor:
    """A gradient, by whichever way will do: for vjps that know a faster one on bare arrays.

    formula: makes it of Tensor ops, so that it can be differentiated again. fast: computes the same numbers
    without a history, and is taken only while nothing is recorded.
    """
    return formula() if is_recording() else constant(fast())


def constant(data: Array) -> Tensor:
    """A Tensor around an array that an op has just made (a mask, a count): no copy, no history."""
    return _wrap(_backend.seal(data))
