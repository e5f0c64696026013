"""What all layers have in common: what belongs to a Module, its modes, its state, and where it lives."""

import copy
import pickle

import numpy as np
import pytest

from minigan import Tensor, grad, nn
from minigan.nn import Module, frozen
from minigan.nn.module import parameter


class Scale(Module):
    """The example of module.py, with a bit of everything."""

    def __init__(self):
        self.factor = parameter(2.0, "factor")
        self.calls = Tensor(0)
        self.shift = Tensor([1.0, 2.0], dtype="float32")
        self.inner = nn.Linear(2, 2, rng=0)
        self.nothing = None
        self.setting = "same"
        self._secret = Tensor(5.0, requires_grad=True)
        self._hidden = nn.Linear(2, 2, rng=1)

    def forward(self, x):
        return self.inner(x) * self.factor + self.shift


class Tied(Module):
    """One layer in two places, and one Tensor in two layers."""

    def __init__(self):
        self.a = nn.Linear(2, 2, rng=0)
        self.b = nn.Linear(2, 2, rng=1)
        self.b.weight = self.a.weight
        self.again = self.a

    def forward(self, x):
        return self.again(self.b(self.a(x)))


def values(module):
    return {name: value.tolist() for name, value in module.state_dict().items()}


# ------------------------------------------------------------------------ what belongs to it


def test_attributes_say_what_a_module_owns():
    m = Scale()
    assert [name for name, _ in m.named_parameters()] == ["factor", "inner.weight", "inner.bias"]
    assert [name for name, _ in m.named_buffers()] == ["calls", "shift"]
    assert [name for name, _ in m.named_children()] == ["inner"]
    assert [name for name, _ in m.named_modules()] == ["", "inner"]
    assert list(m.state_dict()) == ["factor", "calls", "shift", "inner.weight", "inner.bias"]
    assert m.parameters()[0] is m.factor
    assert m.buffers()[0] is m.calls
    assert list(m.children()) == [m.inner]
    assert list(m.modules()) == [m, m.inner]


def test_results_of_ops_belong_to_nobody():
    m = Scale()
    m.result = m.factor * 2
    assert "result" not in m.state_dict()
    assert len(m.parameters()) == 3


def test_a_frozen_parameter_is_still_a_parameter():
    m = Scale()
    m.factor.requires_grad_(False)
    assert "factor" in dict(m.named_parameters())
    assert "factor" not in dict(m.named_buffers())


def test_attributes_may_come_and_go():
    m = Scale()
    m.extra = nn.Linear(1, 1, bias=False, rng=0)
    assert "extra.weight" in m.state_dict()
    del m.extra
    m.factor = None
    assert list(m.state_dict()) == ["calls", "shift", "inner.weight", "inner.bias"]


def test_names_lead_through_the_children():
    m = nn.Sequential(nn.Sequential(nn.Linear(1, 1, rng=0)), nn.BatchNorm1d(1))
    assert list(m.state_dict()) == [
        "0.0.weight", "0.0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var",
        "1.num_batches_tracked",
    ]  # fmt: skip
    assert [name for name, _ in m.named_modules()] == ["", "0", "0.0", "1"]
    assert [name for name, _ in m.named_modules("net")] == ["net", "net.0", "net.0.0", "net.1"]


def test_what_is_shared_counts_once():
    m = Tied()
    assert [name for name, _ in m.named_parameters()] == ["a.weight", "a.bias", "b.bias"]
    assert [name for name, _ in m.named_modules()] == ["", "a", "b"]
    assert [name for name, _ in m.named_children()] == ["a", "b", "again"]
    # As in PyTorch, the state has every name, so that it can be loaded where nothing is shared.
    assert len(m.state_dict()) == 6
    before = m.a.weight.numpy().copy()
    m.to(dtype="float64")
    assert m.again.weight is m.b.weight is m.a.weight
    np.testing.assert_array_equal(m.a.weight.numpy(), before)
    m.load_state_dict({name: np.full_like(value, 3.0) for name, value in m.state_dict().items()})
    assert m.again.weight is m.b.weight is m.a.weight
    x = Tensor([[1.0, 2.0]])
    m(x).sum().backward()
    assert all(p.grad is not None for p in m.parameters())


def test_a_module_without_forward():
    with pytest.raises(NotImplementedError, match="Empty has no forward"):
        type("Empty", (Module,), {})()(1)


def test_arguments_reach_forward():
    class Sum(Module):
        def forward(self, x, *others, scale):
            return (x + sum(others)) * scale

    assert Sum()(1, 2, 3, scale=2) == 12


# ------------------------------------------------------------------------------------- modes


def test_train_and_eval_reach_everything():
    m = nn.Sequential(nn.Linear(1, 1, rng=0), nn.Sequential(nn.Dropout(rng=0)))
    assert all(module.training for module in m.modules())
    assert m.eval() is m
    assert not any(module.training for module in m.modules())
    assert m.train() is m
    assert all(module.training for module in m.modules())
    m[1].eval()
    assert (m.training, m[1].training, m[1][0].training) == (True, False, False)


def test_requires_grad_and_zero_grad():
    m = Scale()
    m(Tensor([[1.0, 1.0]])).sum().backward()
    assert all(p.grad is not None for p in m.parameters())
    m.zero_grad()
    assert all(p.grad is None for p in m.parameters())
    assert m.requires_grad_(False) is m
    assert not m(Tensor([[1.0, 1.0]])).requires_grad
    m.requires_grad_()
    assert m(Tensor([[1.0, 1.0]])).requires_grad


def test_frozen():
    m, x = Scale(), Tensor([[1.0, 1.0]], requires_grad=True)
    m.inner.bias.requires_grad_(False)
    with frozen(m):
        assert not any(p.requires_grad for p in m.parameters())
        y = m(x).sum()
    assert [p.requires_grad for p in m.parameters()] == [True, True, False]  # as before
    y.backward()
    assert x.grad is not None
    assert all(p.grad is None for p in m.parameters())


def test_what_is_frozen_after_the_forward_collects_nothing():
    m, x = Scale(), Tensor([[1.0, 1.0]], requires_grad=True)
    y = m(x).sum()
    with frozen(m):
        y.backward()
    assert x.grad is not None
    assert all(p.grad is None for p in m.parameters())
    y.backward()
    assert all(p.grad is not None for p in m.parameters())


def test_frozen_ends_with_an_exception_too():
    m = Scale()
    m.factor.requires_grad_(False)
    with pytest.raises(ZeroDivisionError), frozen(m):
        raise ZeroDivisionError
    assert [p.requires_grad for p in m.parameters()] == [False, True, True]


def test_frozen_inside_frozen():
    m = Scale()
    with frozen(m):
        with frozen(m.inner):
            pass
        assert not any(p.requires_grad for p in m.parameters())
    assert all(p.requires_grad for p in m.parameters())


# ------------------------------------------------------------------------------------- state


def test_the_state_is_a_copy(backend):
    m = Scale().to(backend)
    state = m.state_dict()
    before = values(m)
    for value in state.values():
        assert type(value) is np.ndarray
        value[...] = 9
    assert values(m) == before


@pytest.mark.parametrize("kind", [np.array, lambda a: a.tolist(), Tensor], ids=["array", "list", "Tensor"])
def test_load_state_dict(kind, backend):
    """The values are taken over; the Tensors that are parameters stay, in their precision and place."""
    m, state = Scale().to(backend), Scale().state_dict()
    state = {name: kind(value + 1) for name, value in state.items()}
    parameters = m.parameters()
    m.load_state_dict(state)
    assert all(a is b for a, b in zip(m.parameters(), parameters, strict=True))
    assert all(value.backend == backend for value in (*parameters, *m.buffers()))
    assert [value.dtype for value in m.state_dict().values()] == ["float32", "int64", *["float32"] * 3]
    assert values(m)["factor"] == 3
    assert values(m)["calls"] == 1
    assert m.shift.node is None


def test_loading_does_not_tie_the_module_to_the_state():
    m, state = Scale(), Scale().state_dict()
    m.load_state_dict(state)
    before = values(m)
    for value in state.values():
        value[...] = 9
    assert values(m) == before


MISFITS = {
    "missing": (lambda s: s.pop("factor"), r"missing: factor$"),
    "missing two": (lambda s: (s.pop("factor"), s.pop("inner.bias")), r"missing: factor, inner.bias"),
    "unexpected": (lambda s: s.update(extra=1.0), r"unexpected: extra"),
    "wrong shape": (
        lambda s: s.update({"inner.bias": np.ones(3)}),
        r"wrong shape: inner.bias has \(2,\) here, \(3,\) in the state",
    ),
    "not numbers": (lambda s: s.update(factor=np.array("two")), r"not numbers: factor has dtype <U3"),
    "complex": (lambda s: s.update(factor=np.array(1j)), r"not numbers: factor has dtype complex128"),
    "everything": (
        lambda s: (s.pop("factor"), s.update({"extra": 1.0, "shift": np.ones(3)})),
        r"(?s)does not fit Scale\n  missing: factor\n  unexpected: extra\n  wrong shape: shift has \(2,\)",
    ),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_state_that_does_not_fit_changes_nothing(case):
    spoil, message = MISFITS[case]
    m = Scale()
    before = values(m)
    state = {name: value + 1 for name, value in m.state_dict().items()}
    spoil(state)
    with pytest.raises(ValueError, match=message):
        m.load_state_dict(state)
    assert values(m) == before


def test_loading_what_there_is():
    m = Scale()
    before = values(m)
    m.load_state_dict({"factor": 7.0, "unknown": 1.0}, strict=False)
    assert values(m) == {**before, "factor": 7.0}
    with pytest.raises(ValueError, match="wrong shape: factor"):
        m.load_state_dict({"factor": [7.0]}, strict=False)


def test_a_state_may_be_in_another_precision():
    m, wide = nn.Linear(3, 2, rng=0), nn.Linear(3, 2, rng=1, dtype="float64")
    m.load_state_dict(wide.state_dict())
    assert m.weight.dtype == np.float32
    np.testing.assert_array_equal(m.weight.numpy(), wide.weight.numpy().astype("float32"))


# -------------------------------------------------------------------------- where it lives


def test_to_another_backend_and_back(backend):
    m = Scale()
    parameters, before = m.parameters(), values(m)
    assert m.to(backend) is m
    assert all(t.backend == backend for t in (*m.parameters(), *m.buffers()))
    assert all(a is b for a, b in zip(m.parameters(), parameters, strict=True))
    assert values(m) == before
    y = m(Tensor(np.ones((3, 2), "float32"), backend=backend))
    assert y.backend == backend
    assert y.dtype == np.float32
    y.sum().backward()
    assert m.factor.grad.backend == backend
    m.to("numpy")
    assert m.factor.grad.backend == "numpy"
    assert values(m) == before


def test_to_another_precision(backend):
    m = Scale().to(backend)
    m(Tensor(np.ones((3, 2), "float32"), backend=backend)).sum().backward()
    m.to(dtype="float64")
    dtypes = {name: value.dtype for name, value in m.state_dict().items()}
    assert dtypes.pop("calls") == np.int64  # whole numbers stay
    assert set(dtypes.values()) == {np.dtype("float64")}
    assert m.factor.grad.dtype == np.float64
    assert m.factor.requires_grad
    assert m.shift.node is None
    y = m(Tensor(np.ones((3, 2)), backend=backend))
    assert y.dtype == np.float64
    assert grad(y.sum(), m.factor).dtype == np.float64


def test_to_keeps_what_is_frozen():
    m = Scale()
    m.factor.requires_grad_(False)
    m.to("strict", "float64")
    assert [p.requires_grad for p in m.parameters()] == [False, True, True]
    assert m.factor.dtype == np.float64


def test_to_refuses_whole_numbers():
    with pytest.raises(TypeError, match="to: dtype='int32'; parameters are floating point"):
        Scale().to(dtype="int32")


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"]
)
def test_a_copy_has_a_life_of_its_own(copied, backend):
    m = nn.Sequential(nn.Linear(2, 3, rng=0), nn.BatchNorm1d(3), nn.Dropout(rng=0)).to(backend)
    x = Tensor(np.arange(8.0).reshape(4, 2), dtype="float32", backend=backend)
    m(x)
    m[0].bias.requires_grad_(False)
    twin = copied(m)
    assert repr(twin) == repr(m)
    assert values(twin) == values(m)
    assert all(t.backend == backend for t in (*twin.parameters(), *twin.buffers()))
    assert [p.requires_grad for p in twin.parameters()] == [p.requires_grad for p in m.parameters()]
    np.testing.assert_array_equal(twin(x).numpy(), m(x).numpy())  # the generators are in the same state
    before = values(m)
    twin(x)
    twin[0].weight.data = np.zeros((3, 2))
    assert values(m) == before
    twin(x).sum().backward()
    assert all(p.grad is None for p in m.parameters())


def test_a_copy_shares_inside_what_the_original_shares():
    twin = copy.deepcopy(Tied())
    assert twin.again is twin.a
    assert twin.b.weight is twin.a.weight


# ----------------------------------------------------------------------- containers, and repr


def test_sequential(rng):
    a, b = nn.Linear(2, 3, rng=0), nn.Linear(3, 1, rng=1)
    m, x = nn.Sequential(a, nn.Tanh(), b), rng.normal(size=(4, 2))
    np.testing.assert_array_equal(m(x).numpy(), b(nn.Tanh()(a(x))).numpy())
    assert len(m) == 3
    assert next(iter(m)) is m[0] is a
    assert m[-1] is b
    assert nn.Sequential()(x) is x
    again = nn.Linear(2, 2, rng=0)
    np.testing.assert_array_equal(nn.Sequential(again, again)(x).numpy(), again(again(x)).numpy())


def test_sequential_takes_modules_only():
    with pytest.raises(TypeError, match=r"^Sequential: argument 1 is <function.*not a Module; wrap.*Lambda"):
        nn.Sequential(nn.Tanh(), lambda x: x)
    with pytest.raises(TypeError, match=r"^Sequential: argument 0 is <class .*Tanh'>, not a Module"):
        nn.Sequential(nn.Tanh)


def test_lambda():
    assert nn.Lambda(lambda a, b: a * b)(3, 4) == 12
    assert repr(nn.Lambda(abs)) == "Lambda(abs)"


def test_residual():
    body, short = nn.Linear(2, 3, rng=0), nn.Linear(2, 3, rng=1)
    x = Tensor([[1.0, 2.0]])
    y = nn.Residual(body, short)(x)
    np.testing.assert_array_equal(y.numpy(), (short(x) + body(x)).numpy())
    assert list(nn.Residual(body).state_dict()) == ["body.weight", "body.bias"]
    with pytest.raises(ValueError, match=r"Residual: the body makes \(1, 3\), the shortcut \(1, 2\).*give a"):
        nn.Residual(body)(x)


def test_repr():
    m = nn.Sequential(nn.Linear(2, 3, rng=0), nn.Residual(nn.Sequential(nn.Tanh())), nn.Sequential())
    assert repr(m).splitlines() == [
        "Sequential(",
        "  (0): Linear(2, 3)",
        "  (1): Residual(",
        "    (body): Sequential(",
        "      (0): Tanh()",
        "    )",
        "  )",
        "  (2): Sequential()",
        ")",
    ]


def test_repr_with_settings_and_children():
    class Block(nn.Sequential):
        def extra_repr(self):
            return "depth=1"

    assert repr(Block(nn.Tanh())) == "Block(\n  depth=1\n  (0): Tanh()\n)"


@pytest.mark.parametrize("several", [list, tuple, lambda modules: dict(enumerate(modules))])
def test_modules_in_a_list_are_refused(several):
    """They would be neither trained nor saved, and nobody would notice."""
    net = nn.ReLU()
    net.blocks = several([nn.Linear(2, 2, rng=0)])
    for f in (net.parameters, net.state_dict, net.eval):
        with pytest.raises(TypeError, match=r"^ReLU: the attribute 'blocks' is a .* of Modules"):
            f()


def test_a_slice_of_a_sequential_is_one():
    net = nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Sigmoid())
    assert repr(net[1:]) == repr(nn.Sequential(nn.Tanh(), nn.Sigmoid()))
    assert net[-1] is net[2]


def test_load_state_dict_changes_all_or_nothing():
    """Whatever is wrong with the last entry, the first one is as it was."""
    net = nn.Module()
    net.v = Tensor([1.0], requires_grad=True)
    net.late = Tensor([1.0]).requires_grad_()
    net.count = Tensor(3)
    good = {"v": [7.0], "late": [7.0], "count": 7}
    for wrong, says in (
        ({}, r"fixed: late was a constant"),
        ({"late": [[1.0], [1.0, 2.0]]}, r"no array: late"),
        ({"count": np.nan}, r"not whole numbers: count"),
        ({"count": 1.5}, r"not whole numbers: count"),
    ):
        with pytest.raises(ValueError, match=says):
            net.load_state_dict(good | wrong)
        assert net.v.item() == 1.0
        assert net.count.item() == 3
