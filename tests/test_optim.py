"""Optimisers: their arithmetic, the memory they keep parameters in, and what they promise the tape."""

import copy
import gc
import math
import tracemalloc
import weakref

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import minigan as mg
from minigan import Tensor, grad, nn, no_grad, optim
from minigan.backend import to_numpy
from minigan.kernels import optim as kernels
from minigan.optim import functional, schedules
from minigan.testing import strategies

CHUNK = kernels.CHUNK


def leaf(value, backend="numpy", **options):
    return Tensor(value, requires_grad=True, backend=backend, **options)


def close(a, b, tolerance=1e-12):
    a, b = (
        np.asarray(x if isinstance(x, (list, float)) else x.numpy() if isinstance(x, Tensor) else to_numpy(x))
        for x in (a, b)
    )
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# Every optimiser with the settings that take another path through it.
OPTIMIZERS = {
    "SGD": lambda params: optim.SGD(params, lr=0.1),
    "SGD decay": lambda params: optim.SGD(params, lr=0.1, weight_decay=0.03),
    "SGD momentum": lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    "SGD damped": lambda params: optim.SGD(params, lr=0.1, momentum=0.9, dampening=0.4, weight_decay=0.03),
    "SGD Nesterov": lambda params: optim.SGD(params, lr=0.1, momentum=0.8, nesterov=True),
    "RMSprop": lambda params: optim.RMSprop(params),
    "RMSprop centered": lambda params: optim.RMSprop(params, alpha=0.8, centered=True, weight_decay=0.03),
    "RMSprop momentum": lambda params: optim.RMSprop(params, lr=0.02, momentum=0.7, eps=1e-3),
    "RMSprop all": lambda params: optim.RMSprop(params, momentum=0.5, centered=True),
    "Adam": lambda params: optim.Adam(params),
    "Adam DCGAN": lambda params: optim.Adam(params, **schedules.DCGAN),
    "Adam WGAN-GP": lambda params: optim.Adam(params, **schedules.WGAN_GP),
    "Adam decay": lambda params: optim.Adam(params, lr=0.01, eps=1e-3, weight_decay=0.03),
    "AdamW": lambda params: optim.AdamW(params, lr=0.01, weight_decay=0.1),
    "Adam scheduled": lambda params: optim.Adam(params, lr=schedules.cosine(0.1, 7)),
}


@pytest.fixture(params=OPTIMIZERS)
def make(request):
    return OPTIMIZERS[request.param]


class ByFormula:
    """What an optimiser should do: the rules of optim/functional.py, on NumPy arrays in float64."""

    def __init__(self, optimizer, values):
        self.optimizer, self.values = optimizer, list(values)
        o = optimizer
        if isinstance(o, optim.SGD):
            init, self.rule = functional.sgd_init, functional.sgd
            names = ("momentum", "dampening", "weight_decay", "nesterov")
        elif isinstance(o, optim.RMSprop):
            init, self.rule = functional.rmsprop_init, functional.rmsprop
            names = ("alpha", "eps", "weight_decay", "momentum", "centered")
        else:
            init, self.rule = functional.adam_init, functional.adam
            names = ("betas", "eps", "weight_decay")
        self.settings = {name: getattr(o, name) for name in names}
        if isinstance(o, optim.AdamW):
            self.settings["decoupled"] = True
        self.state = init([Tensor(a) for a in self.values])

    def step(self, gradients):
        params = [Tensor(a) for a in self.values]
        given = [None if g is None else Tensor(g) for g in gradients]
        with no_grad():
            new, self.state = self.rule(params, given, self.state, lr=self.optimizer.lr, **self.settings)
        self.values = [p.numpy() for p in new]


# --------------------------------------------------------------------------------- the kernels

SIZES = (0, 1, 7, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 3)
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}
some = st.sampled_from  # among the numbers that a setting may be
MOMENTA, DECAYS = some([0.0, 0.5, 0.9]), some([0.0, 0.1])
SGD = st.fixed_dictionaries({"momentum": MOMENTA, "dampening": some([0.0, 0.3]), "weight_decay": DECAYS})
NESTEROV = st.fixed_dictionaries(
    {"momentum": some([0.5, 0.9]), "weight_decay": DECAYS, "nesterov": st.just(True)}
)
RMSPROP = st.fixed_dictionaries(
    {
        "alpha": some([0.0, 0.5, 0.99]), "eps": some([1e-3, 0.1]), "weight_decay": DECAYS,
        "momentum": MOMENTA, "centered": st.booleans(),
    }
)  # fmt: skip
ADAM = st.fixed_dictionaries(
    {
        "beta1": some([0.0, 0.5, 0.9]), "beta2": some([0.0, 0.99, 0.999]), "eps": some([1e-3, 0.1]),
        "weight_decay": DECAYS, "decoupled": st.booleans(),
    }
)  # fmt: skip


def piece_of(size, squares, count, dtype, rng):
    """A Piece of NumPy arrays. squares: of each array that is kept, whether it is an average of squares.

    Before the first step, what is kept is zero.
    """

    def drawn():
        return rng.normal(size=size).astype(dtype)

    kept = [1 + drawn() ** 2 if is_square else drawn() / 10 for is_square in squares]
    kept = [a * (count > 1) for a in kept]
    return kernels.Piece(drawn(), drawn(), np.full(size, np.nan, dtype), np.array([count]), tuple(kept))


def by_formula(rule, piece, state, **settings):
    """The new value, and the new state, of one parameter. Tensors are made of a Piece's arrays."""
    with no_grad():
        new, after = rule([Tensor(piece.p)], [Tensor(piece.g)], [state], **settings)
    return new[0], after[0]


def check_kernel(kernel, pieces, wanted, backend, *chosen, **more):
    """The kernel's new values and what it keeps are `wanted`; values and gradients stay as they were."""
    put = mg.backend.get(backend).from_numpy
    there = [
        kernels.Piece(*(put(a.copy()) for a in piece[:4]), tuple(put(a.copy()) for a in piece.kept))
        for piece in pieces
    ]
    kernel(there, *chosen, **more)
    for piece, here, (new, kept) in zip(there, pieces, wanted, strict=True):
        tolerance = TOLERANCE[str(here.p.dtype)]
        assert {a.dtype for a in (piece.new, *piece.kept)} == {here.p.dtype}
        close(piece.new, new, tolerance)
        for a, b in zip(piece.kept, kept, strict=True):
            close(a, b, tolerance)
        for a, b in zip(piece[:2], here[:2], strict=True):
            close(a, b, 0)
        assert int(piece.count[0]) == int(here.count[0])


# (The fixture `backend` is a name, which no example can change.)
with_backend = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
drawn = given(
    sizes=st.lists(some(SIZES), min_size=1, max_size=3), count=some([1, 2, 1000]),
    dtype=some(["float64", "float32"]), lr=some([0.0, 1e-3, 0.1]), seed=st.integers(0, 2**32), data=st.data(),
)  # fmt: skip


@with_backend
@drawn
def test_sgd_is_its_formula(backend, sizes, count, dtype, lr, seed, data):
    chosen, rng = data.draw(st.one_of(SGD, NESTEROV)), np.random.default_rng(seed)
    pieces = [piece_of(n, [False] * bool(chosen["momentum"]), count, dtype, rng) for n in sizes]
    wanted = []
    for piece in pieces:
        state = Tensor(piece.kept[0]) if piece.kept and count > 1 else None
        new, b = by_formula(functional.sgd, piece, state, lr=lr, **chosen)
        wanted.append((new, [b] * len(piece.kept)))
    check_kernel(kernels.sgd, pieces, wanted, backend, lr, **chosen)


@with_backend
@drawn
def test_rmsprop_is_its_formula(backend, sizes, count, dtype, lr, seed, data):
    chosen, rng = data.draw(RMSPROP), np.random.default_rng(seed)
    # v; then the mean if centered; then the momentum if there is one
    there = [True, chosen["centered"], chosen["momentum"] > 0]
    kept = [squares for squares, is_kept in zip((True, False, False), there, strict=True) if is_kept]
    pieces = [piece_of(n, kept, count, dtype, rng) for n in sizes]
    wanted = []
    for piece in pieces:
        arrays = iter(piece.kept)
        state = tuple(Tensor(next(arrays) if is_kept else np.zeros_like(piece.p)) for is_kept in there)
        new, after = by_formula(functional.rmsprop, piece, state, lr=lr, **chosen)
        wanted.append((new, [a for a, is_kept in zip(after, there, strict=True) if is_kept]))
    check_kernel(kernels.rmsprop, pieces, wanted, backend, lr, **chosen)


@with_backend
@drawn
def test_adam_is_its_formula(backend, sizes, count, dtype, lr, seed, data):
    chosen, rng = data.draw(ADAM), np.random.default_rng(seed)
    pieces = [piece_of(n, [False, True], count, dtype, rng) for n in sizes]
    others = {name: value for name, value in chosen.items() if not name.startswith("beta")}
    wanted = []
    for piece in pieces:
        state = (count - 1, *map(Tensor, piece.kept))
        betas = (chosen["beta1"], chosen["beta2"])
        new, (_, *after) = by_formula(functional.adam, piece, state, lr=lr, betas=betas, **others)
        wanted.append((new, after))
    check_kernel(kernels.adam, pieces, wanted, backend, lr, **chosen)


def test_adam_by_several_threads_is_adam_by_one(rng):
    piece = piece_of(7 * CHUNK + 5, [False, True], 3, "float32", rng)
    results = []
    for size in (1, 3):
        mine = kernels.Piece(*(a.copy() for a in piece[:4]), tuple(a.copy() for a in piece.kept))
        with mg.performance(threads=size, keep_memory=False):
            kernels.adam([mine], 0.1)
        results.append([mine.new, *mine.kept])
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one, other)


@with_backend
@given(
    sizes=st.lists(some(SIZES), max_size=3), share=some([0.0, 0.1, 1.0]), on_device=st.booleans(),
    dtype=some(["float64", "float32"]), seed=st.integers(0, 2**32),
)  # fmt: skip
def test_averages_are_their_formula(backend, sizes, share, on_device, dtype, seed):
    rng, put = np.random.default_rng(seed), mg.backend.get(backend).from_numpy
    pairs = [tuple(rng.normal(size=n).astype(dtype) for _ in range(2)) for n in sizes]
    there = [tuple(put(a.copy()) for a in pair) for pair in pairs]
    kernels.averages(there, put(np.array(share)) if on_device else share)
    for (a, p), (old, new) in zip(there, pairs, strict=True):
        assert a.dtype == np.dtype(dtype)
        close(a, old + share * (new - old), TOLERANCE[dtype])
        close(p, new, 0)


def test_a_variance_below_zero_counts_as_zero(backend):
    """v - mean² cannot be negative, but for rounding errors. √ would make nan of it."""
    arrays = p, g, v, mean = [np.array([x]) for x in (1.0, 0.5, 0.9, 1.0)]
    state = tuple(Tensor(a, backend=backend) for a in (v, mean, v))
    w = leaf(p, backend)
    params, _ = functional.rmsprop([w], [w * 0.5], [state], lr=0.1, eps=1.0, centered=True)
    close(params[0], [0.95])
    close(grad(params[0], w, [1.0]), [0.95])
    p, g, v, mean, new = map(mg.backend.get(backend).from_numpy, (*arrays, np.zeros(1)))
    kernels.rmsprop([kernels.Piece(p, g, new, new, (v, mean))], 0.1, eps=1.0, centered=True)
    close(new, [0.95])


# ------------------------------------------------------------------------- steps of optimisers


@given(st.data())
def test_any_shapes_in_any_layout(data):
    """Parameters and gradients lie in memory as they like; the step is that of the formula."""
    make = OPTIMIZERS[data.draw(st.sampled_from(sorted(OPTIMIZERS)), "optimizer")]
    shapes = data.draw(st.lists(strategies.shapes(max_dims=4), min_size=1, max_size=4), "shapes")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32), "seed"))
    layout = strategies.layouts()
    values = [rng.normal(size=shape) for shape in shapes]
    params = [leaf(data.draw(layout)(a)) for a in values]
    optimizer = make(params)
    expected = ByFormula(optimizer, values)
    for _ in range(3):
        gradients = [rng.normal(size=shape) for shape in shapes]
        for p, g in zip(params, gradients, strict=True):
            p.grad = Tensor(data.draw(layout)(g), copy=False)
        expected.step(gradients)
        optimizer.step()
        for p, right in zip(params, expected.values, strict=True):
            close(p, right, 1e-10)


def test_an_optimizer_on_every_backend(make, backend, rng):
    values = [rng.normal(size=shape) for shape in ((4, 3), (3,), (), (2, 3, 2, 2))]
    params = [leaf(a, backend) for a in values]
    optimizer = make(params)
    expected = ByFormula(optimizer, values)
    for k in range(5):
        gradients = [rng.normal(size=a.shape) if (i + k) % 3 else None for i, a in enumerate(values)]
        for p, g in zip(params, gradients, strict=True):
            p.grad = None if g is None else Tensor(g, backend=backend)
        expected.step(gradients)
        optimizer.step()
        for p, right in zip(params, expected.values, strict=True):
            assert p.backend == backend
            close(p, right)


def test_a_network_learns(make, backend, rng):
    model = nn.Sequential(nn.Linear(2, 8, rng=rng), nn.Lambda(mg.tanh), nn.Linear(8, 1, rng=rng)).to(backend)
    optimizer = make(model.parameters())
    optimizer.lr = 0.003 if isinstance(optimizer, optim.RMSprop) else 0.05
    x = Tensor(rng.normal(size=(32, 2)).astype("f4"), backend=backend)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = mg.square(model(x) - x[:, :1] * x[:, 1:]).mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == np.float32 for p in model.parameters())


# ------------------------------------------------------------------------------ the flat memory


def stepped(params, make=lambda params: optim.SGD(params, lr=0.1)):
    """An optimiser that has made one step with gradients of one."""
    optimizer = make(params)
    ones(params)
    optimizer.step()
    return optimizer


def ones(params):
    for p in params:
        p.grad = Tensor(np.ones(p.shape, p.dtype), backend=p.backend)


def test_parameters_are_views_of_one_memory(backend):
    params = [leaf(np.arange(6.0).reshape(2, 3), backend), leaf([1.0, 2.0], backend), leaf(3.0, backend)]
    optimizer = optim.SGD(params, lr=0.1)
    assert optimizer.flat.together is None
    ones(params)
    optimizer.step()
    close(optimizer.flat.together, np.array([0, 1, 2, 3, 4, 5, 1, 2, 3]) - 0.1)
    params[1].data = np.array([7.0, 8.0])  # it moves out, until the next step
    assert optimizer.flat.together is None
    optimizer.step()
    close(optimizer.flat.together, np.array([-0.1, 0.9, 1.9, 2.9, 3.9, 4.9, 7, 8, 2.9]) - 0.1)
    params[1].grad = None
    optimizer.step()
    assert optimizer.flat.together is None


def test_views_are_read_only():
    p = leaf([1.0, 2.0])
    stepped([p])
    with pytest.raises(ValueError, match="read-only"):
        p.data[0] = 5.0


@pytest.mark.parametrize(
    "order",
    [(0, 1), (1, 0), (0, 1, 2, 3), (0, 2, 3, 1), (3, 1, 0, 2)],
    ids=["row-major", "column-major", "channels first", "channels last", "any"],
)
def test_a_parameter_keeps_its_memory_order(order, backend):
    shape = (4, 3, 5, 2)[: len(order)]
    value = np.arange(math.prod(shape), dtype=float).reshape([shape[axis] for axis in order])
    value = value.transpose(np.argsort(order))
    p = leaf(value, backend)
    p._live_in(mg.backend.get(backend).from_numpy(value))
    strides = p.data.strides
    stepped([p, leaf(1.0, backend)])
    assert p.data.strides == strides
    close(p, value - 0.1)


def test_one_with_gaps_becomes_row_major():
    value = np.arange(48.0).reshape(6, 8)[::2, ::2]
    for array in (value, value.T, value[::-1]):
        p = leaf(np.zeros(array.shape))
        p._live_in(array)
        stepped([p])
        assert p.data.flags.c_contiguous
        close(p, array - 0.1)


def test_a_gradient_in_the_same_order_is_not_copied():
    optimizer = optim.SGD([leaf(np.asfortranarray(np.zeros((3, 4))))], lr=0.1)
    array = np.asfortranarray(np.ones((3, 4)))
    assert np.shares_memory(optimizer.flat.line(array, 0), array)
    assert not np.shares_memory(optimizer.flat.line(np.ones((3, 4)), 0), array)


def test_a_step_is_a_change_that_the_tape_notices(backend):
    x, w = leaf([1.0, 2.0], backend), leaf([3.0, 4.0], backend, name="weight")
    optimizer = stepped([w])
    y = (x * w).sum()
    ones([w])
    optimizer.step()
    with pytest.raises(RuntimeError, match=r"mul: its input 'weight' of shape \(2,\) has been given a new"):
        grad(y, x)
    close(grad((x * w).sum(), x), [2.8, 3.8])


def test_a_step_is_noticed_even_while_frozen(backend):
    x, w = leaf([1.0, 2.0], backend), leaf([3.0, 4.0], backend)
    optimizer = stepped([w])
    w.requires_grad_(False)
    y = (x * w).sum()
    ones([w])
    optimizer.step()
    with pytest.raises(RuntimeError, match="given a new value"):
        y.backward()


def test_what_was_detached_or_computed_before_a_step_stays(backend):
    w = leaf([3.0, 4.0], backend)
    optimizer = stepped([w])
    kept, doubled, gradient = w.detach(), w * 2.0, w.grad
    ones([w])
    optimizer.step()
    close(kept, [2.9, 3.9])
    close(doubled, [5.8, 7.8])
    close(gradient, [1.0, 1.0], 0)
    close(w, [2.8, 3.8])


def frozen_view(w):
    w.requires_grad_(False)
    view = w.T
    w.requires_grad_(True)
    return view


def unrecorded_view(w):
    with no_grad():
        return w.T


VIEWS = {
    "data": lambda w: Tensor(w.data, copy=False),
    "data, T": lambda w: Tensor(w.data.T, copy=False),
    "detach": lambda w: w.detach(),
    "T": lambda w: w.T,
    "T, detached": lambda w: w.T.detach(),
    "T, not recorded": unrecorded_view,
    "T, while frozen": frozen_view,
    "reshape": lambda w: w.reshape(2, 2),
    "index": lambda w: w[:],
    "part": lambda w: w[1],
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_what_somebody_holds_does_not_change(view, backend):
    """A view of a parameter keeps its value over a step, and with it every gradient that it enters."""
    w = leaf([[1.0, 2.0], [3.0, 4.0]], backend)
    optimizer = stepped([w, leaf(1.0, backend)])
    x = leaf([5.0, 6.0], backend)
    v = view(w)
    before = v.numpy().copy()
    y = (x * v).sum()
    for _ in range(2):
        ones([w])
        optimizer.step()
    close(v, before, 0)
    close(grad(y, x), before.reshape(-1, 2).sum(axis=0))
    close(w, np.array([[1.0, 2.0], [3.0, 4.0]]) - 0.3)


def test_old_memory_is_freed_also_while_the_loss_is_alive(rng):
    """Its history refers to the parameters, not to their arrays."""
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, rng=rng), nn.BatchNorm2d(3), nn.LeakyReLU(0.2),
        nn.ConvTranspose2d(3, 2, 2, rng=rng), nn.Tanh(), nn.Flatten(), nn.Linear(50, 1, rng=rng),
    )  # fmt: skip
    optimizer = stepped(net.parameters(), optim.Adam)
    for _ in range(3):
        before = weakref.ref(optimizer.flat.together)
        optimizer.zero_grad()
        loss = net(rng.random((2, 1, 4, 4), "float32")).sum()
        loss.backward()
        optimizer.step()
        gc.collect()
        assert before() is None
        assert np.isfinite(float(loss))


def memory_after(step, steps):
    """How many bytes more there are after so many steps."""
    step()
    gc.collect()
    tracemalloc.start()
    for k in range(steps):
        step()
        if k == 0:
            gc.collect()
            before = tracemalloc.get_traced_memory()[0]
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def test_steps_do_not_add_up_in_memory(make):
    params = [leaf(np.zeros(1000)) for _ in range(10)]
    ones(params)
    assert memory_after(make(params).step, 20) < 8_000  # one parameter


def test_parameters_that_sit_out_in_turn_do_not_keep_much_memory():
    """As when one layer after the other is frozen. Each may lie where it was at another step."""
    params = [leaf(np.zeros(1000)) for _ in range(10)]
    optimizer = stepped(params, optim.Adam)
    tracemalloc.start()
    for p in params[:-1]:
        optimizer.step()
        p.grad = None
    optimizer.step()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 2.2 * 80_000  # twice all parameters; a stretch at each step would be five times


def hold(w, how):
    """What somebody may hold of a parameter, and a way to look at it later."""
    if how == "loss":
        x = leaf(np.ones(w.shape), w.backend)
        y = (w.detach() * x).sum()
        return lambda: grad(y, x).numpy()
    held = {"data": w.data, "data.T": w.data.T, "detach": w.detach(), "view": w.reshape(-1)[1:]}[how]
    return lambda: np.array(held.numpy() if isinstance(held, Tensor) else to_numpy(held))


ACTIONS = ("step", "some", "other", "data", "swap", "load", "hold", "hold", "hold")


@given(data=st.data(), seed=st.integers(0, 2**32))
def test_whatever_is_done_nothing_that_is_held_changes(data, seed):
    """Two optimisers with a parameter in common, values from outside, and somebody who keeps old ones."""
    rng, home = np.random.default_rng(seed), data.draw(st.sampled_from(["numpy", "strict"]), "backend")
    values = [data.draw(strategies.layouts())(rng.normal(size=(2, 3))) for _ in range(3)]
    params = [leaf(a, home) for a in values]
    a, b = optim.SGD(params[:2], lr=0.1), optim.SGD(params[1:], lr=0.01)
    saved, held = [v.copy() for v in values], []
    for action in data.draw(st.lists(st.sampled_from(ACTIONS), max_size=12), "actions"):
        i = data.draw(st.integers(0, 2), "which")
        versions = [p.leaf.version for p in params]
        changed = set()
        if action in ("step", "some", "other"):
            optimizer, first = (b, 1) if action == "other" else (a, 0)
            changed = {first, first + 1} - ({first + i % 2} if action == "some" else set())
            for k, p in enumerate(params):
                p.grad = Tensor(values[k], backend=home) if k in changed else None  # the gradient of w²/2
                if k in changed:
                    values[k] = values[k] - optimizer.lr * values[k]
            optimizer.step()
        elif action == "data":
            values[i] = rng.normal(size=(2, 3))
            params[i].data = values[i]
        elif action == "swap":
            j = (i + 1) % 3
            values[i], values[j] = values[j], values[i]
            params[i].data, params[j].data = params[j].data, params[i].data
        elif action == "load":
            values = [v.copy() for v in saved]
            for p, v in zip(params, values, strict=True):
                p.data = v
        else:
            look = hold(params[i], data.draw(st.sampled_from(["loss", "data", "data.T", "detach", "view"])))
            held.append((look, look()))
        for p, right in zip(params, values, strict=True):
            close(p, right)
        for look, before in held:
            close(look(), before, 0)
        if action in ("step", "some", "other"):
            assert [p.leaf.version for p in params] == [v + (k in changed) for k, v in enumerate(versions)]


def test_making_an_optimizer_changes_nothing(backend):
    x, w = leaf([1.0, 2.0], backend), leaf([3.0, 4.0], backend)
    y = (x * w).sum()
    optim.Adam([w])
    close(grad(y, w), [1.0, 2.0])


def test_a_new_value_between_steps_is_taken_in(backend):
    w = leaf([3.0, 4.0], backend)
    optimizer = stepped([w])
    w.data = np.array([10.0, 20.0])
    ones([w])
    optimizer.step()
    close(w, [9.9, 19.9])
    optimizer.step()
    close(w, [9.8, 19.8])


def test_load_state_dict_between_steps(make, backend, rng):
    """The weights go back to where they began; what the optimiser remembers does not."""
    model = nn.Linear(3, 2, rng=rng, dtype="float64").to(backend)
    start = model.state_dict()
    optimizer = make(model.parameters())
    expected = ByFormula(optimizer, start.values())
    for _ in range(2):
        model.load_state_dict(start)
        expected.values = list(start.values())
        for _ in range(2):
            ones(model.parameters())
            expected.step([np.ones((2, 3)), np.ones(2)])
            optimizer.step()
    for p, right in zip(model.parameters(), expected.values, strict=True):
        close(p, right)
        assert np.abs(p.numpy() - start["weight" if p.ndim == 2 else "bias"]).min() > 1e-6


def test_two_optimizers_may_share_a_parameter(backend):
    a, shared, b = leaf([1.0], backend), leaf([[1.0, 2.0]], backend), leaf([5.0, 6.0], backend)
    first, second = optim.SGD([a, shared], lr=0.1), optim.SGD([shared, b], lr=0.01)
    wanted = np.array([[1.0, 2.0]])
    for _ in range(3):
        for optimizer in (first, second):
            ones([a, shared, b])
            optimizer.step()
            wanted = wanted - optimizer.lr
            close(shared, wanted)
    close(a, [0.7])
    close(b, [4.97, 5.97])


def test_a_parameter_without_gradient_is_left_alone(make, backend):
    """Its value, its place, its memories and its count of steps."""
    w, idle = leaf([1.0, 2.0], backend), leaf([3.0], backend)
    optimizer = make([w, idle])
    array, version = idle.data, idle.leaf.version
    ones([w])
    optimizer.step()
    optimizer.step()
    state = optimizer.state_dict()
    assert idle.data is array
    assert idle.leaf.version == version
    assert state["counts"].tolist() == [2, 0]
    assert all(not state[name].any() for name in state if name.endswith(".1"))
    ones([idle])
    optimizer.step()
    fresh = leaf([3.0], backend)
    lone = make([fresh])
    lone.lr = optimizer._lr if callable(optimizer._lr) else optimizer.lr
    lone.steps_done = optimizer.steps_done - 1
    ones([fresh])
    lone.step()
    close(idle, fresh)  # its first step, not its third


def test_the_gradient_decides_not_the_freeze(backend):
    w = leaf([1.0], backend)
    ones([w])
    w.requires_grad_(False)
    optim.SGD([w], lr=0.1).step()
    close(w, [0.9])
    assert not w.requires_grad


def test_a_gradient_with_a_history_is_only_a_number_here(backend):
    w = leaf([1.0, 2.0], backend)
    (w * w * w).sum().backward(create_graph=True)
    assert w.grad.requires_grad
    optim.SGD([w], lr=0.1).step()
    close(w, [0.7, 0.8])


def test_steps_without_any_gradient_are_an_error():
    w = leaf([1.0])
    optimizer = optim.Adam([w])
    with pytest.raises(ValueError, match=r"Adam\.step: no parameter has a gradient; call loss\.backward"):
        optimizer.step()
    assert optimizer.steps_done == 0


def test_after_to_a_new_optimizer_is_needed():
    model = nn.Linear(2, 2, rng=0)
    optimizer = stepped(model.parameters())
    before = [p.numpy().copy() for p in model.parameters()]
    for move, message in (
        ({"dtype": "float64"}, "parameter 0 is float64 on numpy now, and was float32 on numpy"),
        ({"backend": "strict", "dtype": "float32"}, r"float32 on strict now.*after model\.to"),
    ):
        model.to(**move)
        ones(model.parameters())
        with pytest.raises(ValueError, match=message):
            optimizer.step()
    for p, b in zip(model.parameters(), before, strict=True):
        close(p, b, 0)
    stepped(model.parameters())


def test_a_copied_optimizer_goes_its_own_way(make, backend):
    """Copied together, the copy of the optimiser trains the copy of the model."""
    model = nn.Linear(2, 2, rng=0).to(backend)
    optimizer = stepped(model.parameters(), make)
    twin, twins_optimizer = copy.deepcopy((model, optimizer))
    kept = twin.state_dict()
    for _ in range(2):
        optimizer.step()
    assert all(np.array_equal(value, kept[name]) for name, value in twin.state_dict().items())
    for _ in range(2):
        twins_optimizer.step()
    assert all(np.array_equal(value, model.state_dict()[name]) for name, value in twin.state_dict().items())
    assert not np.array_equal(twin.state_dict()["weight"], kept["weight"])


# -------------------------------------------------------------------------- gradients pile up


def test_gradients_that_are_not_forgotten_pile_up(backend):
    """Known mistake: no zero_grad. D's gradient from G's step is still there in D's next step."""

    def after_d_steps(forget):
        d, x, fake = (
            leaf([1.0, -2.0], backend),
            Tensor([0.5, 1.0], backend=backend),
            leaf([0.1, 0.2], backend),
        )
        optimizer = optim.SGD([d], lr=0.1)
        for _ in range(2):
            if forget:
                optimizer.zero_grad()
                assert d.grad is None
            mg.softplus(-(d * x).sum()).backward()
            optimizer.step()
            d_grad = d.grad.numpy().copy()
            mg.softplus(-(d * fake).sum()).backward()  # G's step: its gradient goes through D and into D
            assert np.abs(d.grad.numpy() - d_grad).min() > 1e-3
        return d.numpy().copy()

    def by_hand():
        d, x = np.array([1.0, -2.0]), np.array([0.5, 1.0])
        for _ in range(2):
            d = d + 0.1 * x / (1 + np.exp(d @ x))
        return d

    close(after_d_steps(forget=True), by_hand())
    assert np.abs(after_d_steps(forget=False) - by_hand()).max() > 1e-3


def test_zero_grad_forgets_only_its_own(backend):
    a, b = leaf([1.0], backend), leaf([1.0], backend)
    ones([a, b])
    optim.SGD([a], lr=0.1).zero_grad()
    assert a.grad is None
    close(b.grad, [1.0])


# ---------------------------------------------------------------------------------------- state


def train(model, optimizer, rng, steps):
    for _ in range(steps):
        x = Tensor(rng.normal(size=(8, 3)).astype("f4"), backend=model.weight.backend)
        optimizer.zero_grad()
        mg.square(model(x)).mean().backward()
        optimizer.step()


def test_resumed_equals_uninterrupted_bit_for_bit(make, backend, tmp_path):
    model = nn.Linear(3, 2, rng=0).to(backend)
    optimizer = make(model.parameters())
    rng = np.random.default_rng(1)
    train(model, optimizer, rng, 3)
    mg.io.save(tmp_path / "run.npz", {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    train(model, optimizer, rng, 3)

    again = nn.Linear(3, 2, rng=5).to(backend)
    later = make(again.parameters())
    rng = np.random.default_rng(1)
    rng.normal(size=(3, 8, 3))
    saved = mg.io.load(tmp_path / "run.npz")
    again.load_state_dict(mg.io.section(saved, "model"))
    later.load_state_dict(mg.io.section(saved, "optimizer"))
    assert later.steps_done == 3
    assert later.lr != 0
    train(again, later, rng, 3)
    for name, value in model.state_dict().items():
        assert np.array_equal(value, again.state_dict()[name]), name
    for name, value in optimizer.state_dict().items():
        assert np.array_equal(value, later.state_dict()[name]), name


def test_state_is_in_the_parameters_shapes_and_stays_as_it_was(backend):
    w = leaf(np.asfortranarray(np.zeros((2, 3))), backend)
    optimizer = optim.Adam([w], betas=(0.5, 0.9))
    w.grad = Tensor(np.arange(6.0).reshape(2, 3), backend=backend)
    optimizer.step()
    state = optimizer.state_dict()
    assert list(state) == ["kind", "steps_done", "counts", "m.0", "v.0"]
    close(state["m.0"], np.arange(6.0).reshape(2, 3) * 0.5)
    optimizer.step()
    close(state["m.0"], np.arange(6.0).reshape(2, 3) * 0.5)
    assert state["steps_done"] == 1


def test_what_is_remembered_of_a_parameter(backend):
    """In its shape, whatever its memory order; a copy, which no later step changes."""
    w, b = (mg.Tensor(np.ones(shape), requires_grad=True, backend=backend) for shape in ((2, 3), (3,)))
    adam = optim.Adam([w, b], lr=0.1, betas=(0.5, 0.75))
    w.grad = mg.Tensor(np.arange(6.0).reshape(2, 3), backend=backend)
    adam.step()
    steps, kept = adam.remembered(w)
    assert steps == 1 and sorted(kept) == ["m", "v"]
    adam.step()
    assert np.array_equal(mg.backend.to_numpy(kept["m"]), np.arange(6.0).reshape(2, 3) / 2)
    assert np.array_equal(mg.backend.to_numpy(kept["v"]), np.arange(6.0).reshape(2, 3) ** 2 / 4)
    assert adam.remembered(b)[0] == 0
    with pytest.raises(ValueError, match=r"Tensor of shape \(1,\) is not one of its"):
        adam.remembered(mg.Tensor([1.0]))


def test_a_state_that_does_not_fit_changes_nothing():
    w, b = leaf(np.zeros((2, 3))), leaf(np.zeros(2))
    optimizer = stepped([w, b], lambda params: optim.Adam(params))
    before = optimizer.state_dict()
    wrong = {
        "kind": "RMSprop",
        "steps_done": 4,
        "counts": np.array([4]),
        "m.0": np.ones((3, 2)),
        "v.0": np.ones((2, 3)),
        "m.1": np.array(["a", "b"]),
        "mean.0": 0.0,
    }
    with pytest.raises(ValueError) as caught:
        optimizer.load_state_dict(wrong)
    message = str(caught.value)
    for part in (
        "load_state_dict: does not fit this Adam",
        "it is the state of RMSprop",
        "missing: v.1",
        "unexpected: mean.0",
        "wrong shape: counts has (2,) here, (1,) in the state",
        "wrong shape: m.0 has (2, 3) here, (3, 2) in the state",
        "not numbers: m.1",
    ):
        assert part in message
    for name, value in optimizer.state_dict().items():
        assert np.array_equal(value, before[name])


# ------------------------------------------------------------------------------------- schedules


def test_a_schedule_is_asked_with_the_number_of_steps_done():
    asked = []
    w = leaf([1.0])
    optimizer = optim.SGD([w], lr=lambda step: asked.append(step) or 0.1 * (step + 1))
    for _ in range(3):
        ones([w])
        optimizer.step()
    assert asked == [0, 1, 2]
    close(w, [1 - 0.1 - 0.2 - 0.3])
    assert optimizer.lr == pytest.approx(0.4)
    optimizer.lr = 0.5
    assert optimizer.lr == 0.5


def test_a_schedule_that_fails_leaves_all_as_it_was():
    w = leaf([1.0, 2.0])
    optimizer = stepped([w], optim.Adam)
    before, value = optimizer.state_dict(), w.numpy().copy()
    optimizer.lr = lambda step: -1.0
    with pytest.raises(ValueError, match="the schedule's rate at step 1 must be 0 or more"):
        optimizer.step()
    close(w, value, 0)
    for name, kept in optimizer.state_dict().items():
        assert np.array_equal(kept, before[name]), name


def test_schedules_are_what_their_formulas_say():
    def of(schedule, steps):
        return [schedule(step) for step in steps]

    assert of(schedules.constant(0.1), (0, 99)) == [0.1, 0.1]
    assert of(schedules.staircase(1.0, 10, 0.1), (0, 9, 10, 25)) == pytest.approx([1, 1, 0.1, 0.01])
    assert of(schedules.linear(2.0, 10), (0, 5, 10, 50)) == pytest.approx([2, 1, 0, 0])
    assert of(schedules.linear(2.0, 10, end=1.0, start=100), (0, 100, 105, 110, 111)) == pytest.approx(
        [2, 2, 1.5, 1, 1]
    )
    assert of(schedules.cosine(2.0, 8, end=1.0), (0, 4, 8, 20)) == pytest.approx([2, 1.5, 1, 1])
    assert of(schedules.warm_up(schedules.linear(1.0, 10), 2), (0, 1, 2)) == pytest.approx([0.5, 0.9, 0.8])
    assert of(schedules.repeated(schedules.linear(1.0, 10), 5), (0, 4, 5, 9)) == pytest.approx(
        [1, 1, 0.9, 0.9]
    )


def test_the_settings_of_papers():
    w = leaf([1.0])
    dcgan = optim.Adam([w], **schedules.DCGAN)
    assert (dcgan.lr, dcgan.betas) == (2e-4, (0.5, 0.999))
    progan = optim.Adam([w], **schedules.PROGAN)
    assert (progan.lr, progan.betas, progan.eps) == (1e-3, (0.0, 0.99), 1e-8)
    g, d = optim.Adam([w], **schedules.WGAN_GP), optim.Adam([w], **schedules.WGAN_GP_CRITIC)
    assert (g.betas, d.betas) == ((0.0, 0.9), (0.0, 0.9))
    for generator_steps, rate in ((0, 2e-4), (50_000, 1e-4), (99_999, 2e-9), (100_000, 0.0)):
        g.steps_done, d.steps_done = generator_steps, 5 * generator_steps + 4
        assert g.lr == d.lr == pytest.approx(rate)


# -------------------------------------------------------------------------------------- clipping


def test_clip_grad_norm_takes_all_gradients_as_one_vector(backend):
    a, b, idle = leaf([0.0, 0.0], backend), leaf([[0.0]], backend), leaf([1.0], backend)
    a.grad, b.grad = Tensor([3.0, 0.0], backend=backend), Tensor([[4.0]], backend=backend)
    old = a.grad
    assert optim.clip_grad_norm([a, b, idle], 10.0) == 5.0
    close(a.grad, [3.0, 0.0], 0)
    assert optim.clip_grad_norm([a, b, idle], 1.0) == 5.0
    close(a.grad, [0.6, 0.0], 1e-6)
    close(b.grad, [[0.8]], 1e-6)
    assert idle.grad is None
    close(old, [3.0, 0.0], 0)
    assert optim.clip_grad_norm([idle], 1.0) == 0.0


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float16", 2e4), ("float32", 1e30), ("float32", 1e-30), ("float64", 1e200), ("float64", 1e-200)],
)
def test_clip_grad_norm_of_numbers_whose_squares_do_not_fit(dtype, size, backend):
    a, b = leaf([0.0, 0.0], backend, dtype=dtype), leaf([[0.0]], backend, dtype="float64")
    nothing = leaf(np.zeros((0, 3)), backend, dtype=dtype)
    a.grad = Tensor(np.array([3.0, 0.0]) * size, dtype=dtype, backend=backend)
    b.grad = Tensor([[4.0 * size]], dtype="float64", backend=backend)
    nothing.grad = Tensor(np.zeros((0, 3)), dtype=dtype, backend=backend)
    norm = optim.clip_grad_norm([a, nothing, b], 1e-3 * size)
    assert norm == pytest.approx(5 * size, rel=1e-3 if dtype == "float16" else 1e-6, abs=0)
    if size > 1:
        assert float(b.grad) / size == pytest.approx(0.8e-3, rel=1e-3)
    assert a.grad.dtype == dtype


def test_clip_grad_norm_waits_once_however_many_parameters_there_are(counting):
    waits = []
    for count in (1, 20):
        params = [leaf([0.0, 1.0], "cupy") for _ in range(count)]
        for p in params:
            p.grad = Tensor([3.0, 4.0], backend="cupy")
        with counting() as counts:
            optim.clip_grad_norm(params, 1e9)
        waits.append(counts.to_host)
    assert waits == [1, 1]


def test_clip_grad_norm_of_what_is_not_finite_is_an_error():
    a = leaf([0.0, 0.0])
    for bad in (np.nan, np.inf):
        a.grad = Tensor([1.0, bad])
        with pytest.raises(ValueError, match=f"clip_grad_norm: the norm of the gradients is {bad}"):
            optim.clip_grad_norm([a], 1.0)


def test_clip_grad_value(backend):
    a, idle = leaf([0.0, 0.0, 0.0], backend), leaf([1.0], backend)
    a.grad = Tensor([3.0, -4.0, 0.5], backend=backend)
    optim.clip_grad_value([a, idle], 1.0)
    close(a.grad, [1.0, -1.0, 0.5], 0)
    assert idle.grad is None


# ----------------------------------------------------------------------- steps that have a gradient

RULES = {
    "sgd": (functional.sgd_init, functional.sgd, {"lr": 0.1}),
    "sgd momentum": (
        functional.sgd_init, functional.sgd,
        {"lr": 0.1, "momentum": 0.9, "dampening": 0.2, "weight_decay": 0.1},
    ),
    "sgd nesterov": (functional.sgd_init, functional.sgd, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "rmsprop": (functional.rmsprop_init, functional.rmsprop, {"weight_decay": 0.1}),
    "rmsprop all": (
        functional.rmsprop_init, functional.rmsprop,
        {"lr": 0.02, "alpha": 0.8, "eps": 1e-3, "momentum": 0.5, "centered": True},
    ),
    "adam": (functional.adam_init, functional.adam, {"betas": (0.5, 0.9), "eps": 1e-3}),
    "adam decay": (functional.adam_init, functional.adam, {"lr": 0.01, "weight_decay": 0.1}),
    "adamw": (functional.adam_init, functional.adam, {"lr": 0.01, "weight_decay": 0.1, "decoupled": True}),
}  # fmt: skip


@pytest.fixture(params=RULES)
def rule(request):
    return RULES[request.param]


def loss_of(params, target):
    w, b = params
    return mg.square(mg.tanh(w) @ b - target).sum()


def test_both_forms_of_an_optimizer_agree(rule, backend, rng):
    init, update, settings = rule
    values = [rng.normal(size=(4, 3)), rng.normal(size=3)]
    target = Tensor(rng.normal(size=4), backend=backend)
    in_place = [leaf(a, backend) for a in values]
    settings_of_class = {name: value for name, value in settings.items() if name != "decoupled"}
    kinds = {functional.sgd: optim.SGD, functional.rmsprop: optim.RMSprop, functional.adam: optim.Adam}
    kind = optim.AdamW if settings.get("decoupled") else kinds[update]
    optimizer = kind(in_place, **settings_of_class)
    params = [leaf(a, backend) for a in values]
    state = init(params)
    for _ in range(20):
        optimizer.zero_grad()
        loss_of(in_place, target).backward()
        optimizer.step()
        gradients = grad(loss_of(params, target), params)
        params, state = update(params, gradients, state, **settings)
        for one, other in zip(in_place, params, strict=True):
            close(one, other)


def test_the_gradient_through_three_steps(rule, rng):
    """The result after three steps, as a function of where they began and of the target."""
    init, update, settings = rule

    def unrolled(w, b, target):
        params = [w, b]
        state = init(params)
        for _ in range(3):
            gradients = grad(loss_of(params, target), params, create_graph=True)
            params, state = update(params, gradients, state, **settings)
        return params

    def as_leaves(w, b, target):
        return unrolled(w * 1.0, b * 1.0, target)

    mg.gradcheck(as_leaves, rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=4), order=1)


def test_the_learning_rate_has_a_gradient(rule, rng):
    init, update, settings = rule
    start, target = [rng.normal(size=(4, 3)), rng.normal(size=3)], Tensor(rng.normal(size=4))
    settings = {name: value for name, value in settings.items() if name != "lr"}

    def final_loss(lr):
        params = [leaf(a) for a in start]
        state = init(params)
        for _ in range(3):
            gradients = grad(loss_of(params, target), params, create_graph=True)
            params, state = update(params, gradients, state, lr=lr, **settings)
        return loss_of(params, target)

    mg.gradcheck(final_loss, 0.03, order=1)


def test_entries_without_gradient_do_not_become_nan(rule, backend):
    """√v has no derivative at v = 0, where an entry has never had a gradient."""
    init, update, settings = rule
    w, x = leaf([1.0, 2.0], backend), leaf([3.0, 0.0], backend)
    params, state = [w], init([w])
    for _ in range(3):
        gradients = grad((params[0] * x).sum() ** 2, params, create_graph=True)
        params, state = update(params, gradients, state, **settings)
    found = grad(params[0].sum(), [w, x])
    assert all(np.isfinite(g.numpy()).all() for g in found)


def test_a_parameter_without_gradient_is_handed_on(rule, backend):
    init, update, settings = rule
    params = [leaf([1.0], backend), leaf([2.0], backend)]
    state = init(params)
    new, after = update(params, [Tensor([1.0], backend=backend), None], state, **settings)
    assert float(new[0][0]) != 1.0
    assert new[1] is params[1]
    assert after[1] is state[1]
    with pytest.raises(ValueError, match="2 parameters, 1 gradients, a state of 2"):
        update(params, [None], state, **settings)


# ---------------------------------------------------------------------------------------- errors

W = leaf(np.ones((2, 2)), name="w")
LATE = Tensor([1.0]).requires_grad_()
MISTAKES = {
    "none": (lambda: optim.Adam([]), ValueError, "Adam: there are no parameters"),
    "a Tensor": (lambda: optim.Adam(W), TypeError, "Adam: params is a Tensor; give a list"),
    "a Module": (lambda: optim.SGD(nn.Linear(1, 1, rng=0), 0.1), TypeError, "SGD: params is a Linear"),
    "Modules": (lambda: optim.SGD([nn.Linear(1, 1, rng=0)], 0.1), TypeError, r"params\[0\] is a Linear"),
    "a constant": (lambda: optim.Adam([W, Tensor([1.0])]), ValueError, r"params\[1\] of shape \(1,\) is no"),
    "a result": (lambda: optim.Adam([W * 2.0]), ValueError, r"params\[0\] of shape \(2, 2\) is no leaf"),
    "late": (lambda: optim.Adam([LATE]), ValueError, "was a constant before requires_grad_"),
    "twice": (lambda: optim.Adam([W, leaf(1.0), W]), ValueError, r"params\[0\] and params\[2\] are the"),
    "dtypes": (
        lambda: optim.Adam([W, leaf(1.0, dtype="float32")]), ValueError,
        "parameter 0 is float64 on numpy, parameter 1 float32 on numpy",
    ),
    "backends": (lambda: optim.Adam([W, leaf(1.0, "strict")]), ValueError, "parameter 1 float64 on strict"),
    "float16": (lambda: optim.Adam([leaf(1.0, dtype="float16")]), ValueError, "float16 are too coarse"),
    "lr": (lambda: optim.Adam([W], lr=-1e-3), ValueError, "Adam: lr must be 0 or more, not -0.001"),
    "lr nan": (lambda: optim.SGD([W], lr=math.nan), ValueError, "SGD: lr must be 0 or more, not nan"),
    "lr None": (lambda: optim.SGD([W], lr=None), TypeError, "SGD: lr must be a number, not None"),
    "betas": (lambda: optim.Adam([W], betas=(0.9, 1.0)), ValueError, "β₂ must be from 0 to just under 1"),
    "one beta": (lambda: optim.AdamW([W], betas=0.5), ValueError, "AdamW: betas=0.5; give two numbers"),
    "eps": (lambda: optim.Adam([W], eps=-1), ValueError, "Adam: eps must be"),
    "decay": (lambda: optim.AdamW([W], weight_decay=-1), ValueError, "AdamW: weight_decay must be"),
    "alpha": (lambda: optim.RMSprop([W], alpha=1), ValueError, "RMSprop: alpha must be"),
    "momentum": (lambda: optim.SGD([W], 0.1, momentum=-1), ValueError, "SGD: momentum must be"),
    "nesterov": (lambda: optim.SGD([W], 0.1, nesterov=True), ValueError, "nesterov=True needs a momentum"),
    "schedule": (
        lambda: optim.Adam([W], lr=lambda step: -1.0).lr, ValueError,
        "Adam: the schedule's rate at step 0 must be 0 or more",
    ),
    "staircase": (lambda: schedules.staircase(1.0, 0), ValueError, "staircase: every must be 1 or more"),
    "cosine": (lambda: schedules.cosine(1.0, 0), ValueError, "cosine: steps must be 1 or more"),
    "norm": (lambda: optim.clip_grad_norm([W], 0), ValueError, "clip_grad_norm: max_norm must be above 0"),
    "value": (lambda: optim.clip_grad_value([W * 2.0], 1), ValueError, "clip_grad_value: .* is no leaf"),
    "one": (lambda: optim.clip_grad_norm(W, 1), TypeError, "clip_grad_norm: params is a Tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_are_explained(case):
    wrong, kind, message = MISTAKES[case]
    with pytest.raises(kind, match=message):
        wrong()


def test_repr_shows_the_settings():
    shown = repr(optim.Adam([W], lr=2e-4, betas=(0.5, 0.999)))
    assert shown == "Adam(1 parameters, lr=0.0002, betas=(0.5, 0.999), eps=1e-08, weight_decay=0.0)"
