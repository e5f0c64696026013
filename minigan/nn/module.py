"""Module: what all layers have in common. A layer is a function that owns Tensors.

    class Scale(Module):
        def __init__(self):
            self.factor = Tensor(1.0, requires_grad=True)     # a parameter: it will be trained
            self.offset = Tensor(0.5)                         # a buffer: saved, but not trained

        def forward(self, x):
            return x * self.factor + self.offset

There is no registration. What a Module owns is what its attributes say:

    a leaf Tensor (requires_grad=True)      a parameter
    a constant Tensor                       a buffer: part of the state, such as running statistics
    a Module                                a child

Attributes whose names begin with an underscore are private, and none of these: a cache of `forward`, say. A
list of Modules is an error: put them into a Sequential, whose attributes they then are.
Parameters have PyTorch's names and layouts, so that weights can move between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

from .. import backend as _backend
from ..tensor import Tensor

M = TypeVar("M", bound="Module")
Hook = Callable[["Module"], None]


class Module:
    """A function that owns parameters, buffers and other Modules. Subclasses define `forward`."""

    training: bool = True  # train() and eval() set it
    # Does the output for one image of a batch depend on the other images? None: not known of this class.
    mixes_images: bool | None = None
    rng: Any = None  # what draws this Module's random numbers, if it needs any (Dropout)
    _pre_hooks: tuple[Hook, ...] = ()  # called before each forward: spectral_norm computes the weight there
    _computed: frozenset[str] = frozenset()  # names of Tensors that are neither parameters nor buffers

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        for hook in self._pre_hooks:
            hook(self)
        if list in map(type, args):
            args = tuple(self._in_own_precision(arg) for arg in args)
        return self.forward(*args, **kwargs)

    def _in_own_precision(self, value: Any) -> Any:
        """A list of floats in the precision of the parameters: it has none of its own. Others as they are."""
        inner = value
        while type(inner) is list and inner:
            inner = inner[0]
        own = next((p for p in self.parameters()), None) if isinstance(inner, float) else None
        return value if own is None else Tensor(value, dtype=own.dtype, backend=own.backend)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward; a Module must define one")

    # ------------------------------------------------------------------- what belongs to it

    def _own(self, kind: Callable[[Any], bool]) -> Iterator[tuple[str, Any]]:
        for name, value in vars(self).items():
            if name[0] == "_" or name in self._computed:
                continue
            if kind(value):
                yield name, value
            elif isinstance(value, (list, tuple, dict)) and any(map(_is_owned, _items(value))):
                raise TypeError(
                    f"{type(self).__name__}: the attribute {name!r} is a {type(value).__name__} of Modules "
                    "or parameters, which would be neither trained nor saved; use Sequential(*modules), or "
                    "one attribute for each"
                )

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """(name, Module) of the Modules that are attributes of this one."""
        yield from self._own(lambda value: isinstance(value, Module))

    def children(self) -> Iterator[Module]:
        """The Modules that are attributes of this one."""
        return (child for _, child in self.named_children())

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """(name, Module) of this one, called "", and of everything inside, once each."""
        seen: set[Module] = set()
        for name, module in self._walk(prefix):
            if module not in seen:
                seen.add(module)
                yield name, module

    def modules(self) -> Iterator[Module]:
        """This Module and all those inside."""
        return (module for _, module in self.named_modules())

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """(name, Tensor) of all parameters, here and in the children: "0.weight". Each Tensor once."""
        return _once(self._tensors(_is_parameter))

    def parameters(self) -> list[Tensor]:
        """All parameters, here and in the children: what an optimiser wants."""
        return [parameter for _, parameter in self.named_parameters()]

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """(name, Tensor) of all buffers, here and in the children."""
        return _once(self._tensors(_is_buffer))

    def buffers(self) -> list[Tensor]:
        """All buffers, here and in the children."""
        return [buffer for _, buffer in self.named_buffers()]

    def _walk(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """Like named_modules, but a Module that is in two places comes twice."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child._walk(f"{prefix}.{name}" if prefix else name)

    def _tensors(self, kind: Callable[[Any], bool]) -> Iterator[tuple[str, Tensor]]:
        for prefix, module in self._walk():
            for name, value in module._own(kind):
                yield f"{prefix}.{name}" if prefix else name, value

    # ------------------------------------------------------------------------------ modes

    def train(self: M, flag: bool = True) -> M:
        """Training mode, here and everywhere inside: BatchNorm uses the batch's statistics, Dropout drops."""
        for module in self.modules():
            module.training = flag
        return self

    def eval(self: M) -> M:
        """Evaluation mode: running statistics where there are any, no dropout, no power iteration."""
        return self.train(False)

    def requires_grad_(self: M, flag: bool = True) -> M:
        """Freeze all parameters (flag=False), or thaw them. See also `frozen`."""
        for parameter in self.parameters():
            parameter.requires_grad_(flag)
        return self

    def zero_grad(self) -> None:
        """Forget the gradients that `backward` has added up."""
        for parameter in self.parameters():
            parameter.grad = None

    def to(self: M, backend: str | None = None, dtype: Any = None) -> M:
        """Move to another backend ("cupy"), or to another precision (dtype="float64"); whole numbers stay.

        The parameters remain the same Tensors, with new values. Make the optimiser afterwards: one that
        exists already has its memory where the parameters were. float16 is for keeping weights, not for
        computing: normalisation layers overflow in it.
        """
        if backend in ("float16", "float32", "float64"):
            raise ValueError(f"to: {backend!r} is a precision, not a backend; write to(dtype={backend!r})")
        if dtype is not None and np.dtype(dtype).kind != "f":
            raise TypeError(f"to: dtype={dtype!r}; parameters are floating point numbers")
        for module in self.modules():
            for name, tensor in [*module._own(_is_parameter), *module._own(_is_buffer)]:
                value = _moved(tensor, backend, dtype)
                if tensor.leaf is None:
                    setattr(module, name, value)
                    continue
                gradient = None if tensor.grad is None else _moved(tensor.grad, backend, dtype)
                tensor.grad = None
                tensor._live_in(value._data)
                tensor.grad = gradient
        return self

    # ------------------------------------------------------------------------------ state

    def state_dict(self) -> dict[str, np.ndarray]:
        """{name: value} of all parameters and buffers, as NumPy arrays of their own."""
        both = self._tensors(lambda value: _is_parameter(value) or _is_buffer(value))
        return {name: np.array(tensor.numpy()) for name, tensor in both}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> None:
        """Take over the values of `state`, as state_dict gave them; PyTorch's do, too.

        Nothing is changed unless everything fits. strict=False: names that are missing in `state`, or
        unknown here, are passed over; wrong shapes are an error all the same.
        """
        places = {}
        for prefix, module in self._walk():
            for name, tensor in [*module._own(_is_parameter), *module._own(_is_buffer)]:
                places[f"{prefix}.{name}" if prefix else name] = (module, name, tensor)
        complaints = []
        if strict:
            missing = [name for name in places if name not in state]
            unexpected = [name for name in state if name not in places]
            complaints += [f"  missing: {', '.join(missing)}"] * bool(missing)
            complaints += [f"  unexpected: {', '.join(unexpected)}"] * bool(unexpected)
        values = {}
        for name, (_, _, tensor) in places.items():
            if name not in state:
                continue
            try:
                value = _array_of(state[name])
            except Exception as error:  # ragged lists, PyTorch parameters that were not detached ...
                complaints.append(f"  no array: {name}: {error}")
                continue
            whole = tensor.dtype.kind in "iu"
            if value.shape != tensor.shape:
                complaints.append(
                    f"  wrong shape: {name} has {tensor.shape} here, {value.shape} in the state"
                )
            elif value.dtype.kind not in "fiub" or (whole and (value % 1 != 0).any()):
                what = "whole numbers" if whole else "numbers"
                complaints.append(f"  not {what}: {name} has dtype {value.dtype} in the state")
            elif tensor.leaf is not None and tensor.leaf.fixed:
                complaints.append(
                    f"  fixed: {name} was a constant before requires_grad_(), and keeps its value"
                )
            else:
                values[name] = value.astype(tensor.dtype)
        if complaints:
            raise ValueError("\n".join([f"load_state_dict: does not fit {type(self).__name__}", *complaints]))
        for name, value in values.items():
            module, attribute, tensor = places[name]
            if tensor.leaf is not None:
                tensor.data = value
            else:
                setattr(module, attribute, Tensor(value, backend=tensor.backend))

    # -------------------------------------------------------------------------- for reading

    def extra_repr(self) -> str:
        """What stands between the parentheses in `repr`: the settings of the layer."""
        return ""

    def __repr__(self) -> str:
        children = [f"({name}): {child!r}".replace("\n", "\n  ") for name, child in self.named_children()]
        extra = self.extra_repr()
        hooks = "".join(f" with {hook}" for hook in self._pre_hooks)
        if not children:
            return f"{type(self).__name__}({extra}){hooks}"
        lines = [f"  {line}" for line in ([extra] if extra else []) + children]
        return "\n".join([f"{type(self).__name__}(", *lines, f"){hooks}"])


class Layer(Module):
    """A Module that treats each image of a batch by itself, as far as its own work goes.

    `mixes_images` decides whether a Game sends real images and fakes through D as one batch, and whether a
    gradient penalty can be taken: where images are mixed, a logit has no slope at one image.
    """

    mixes_images = False


def parameter(value: Any, name: str, dtype: Any = "float32", memory: tuple[int, ...] | None = None) -> Tensor:
    """A Tensor to be trained, with this first value.

    memory: the axes in the order in which they lie in memory, slowest first. It changes nothing but the
    speed; the ops say which order suits them.
    """
    if memory is not None:
        back = sorted(range(len(memory)), key=lambda i: memory[i])
        value = np.ascontiguousarray(np.transpose(value, memory)).transpose(back)
    return Tensor(value, requires_grad=True, dtype=dtype, name=name)


def _is_parameter(value: Any) -> bool:
    return isinstance(value, Tensor) and value.leaf is not None


def _is_owned(value: Any) -> bool:
    return isinstance(value, Module) or _is_parameter(value)


def _items(value: Any) -> Any:
    return value.values() if isinstance(value, dict) else value


def _is_buffer(value: Any) -> bool:
    return isinstance(value, Tensor) and value.leaf is None and value.node is None


def _once(named: Iterator[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    seen: set[Tensor] = set()
    for name, tensor in named:
        if tensor not in seen:
            seen.add(tensor)
            yield name, tensor


def _moved(tensor: Tensor, backend: str | None, dtype: Any) -> Tensor:
    """A constant with the same value, elsewhere."""
    tensor = tensor.detach()
    if backend is not None and backend != tensor.backend:
        tensor = tensor.to(backend)
    return tensor.astype(dtype) if dtype is not None and tensor.dtype.kind == "f" else tensor


def _array_of(value: Any) -> np.ndarray:
    """A NumPy array from whatever a state may hold: arrays of any backend, Tensors of ours or PyTorch's."""
    return value.numpy() if isinstance(value, Tensor) else _backend.to_numpy(value)


@contextmanager
def frozen(module: Module) -> Iterator[None]:
    """Inside, the module's parameters are constants: no gradient is computed for them, none arrives.

    The generator's step trains the generator *through* the discriminator. With the discriminator frozen,
    the work for its own weight gradients is saved, and they cannot get into its optimiser by mistake.
    Parameters that were frozen before stay so afterwards.

    >>> from minigan import nn
    >>> d = nn.Linear(2, 1, rng=0)
    >>> with frozen(d):
    ...     d([[1.0, 2.0]]).requires_grad
    False
    """
    if not isinstance(module, Module):
        raise TypeError(f"frozen: {module!r} is a {type(module).__name__}, not a Module")
    thawed = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in thawed:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in thawed:
            parameter.requires_grad_(True)
