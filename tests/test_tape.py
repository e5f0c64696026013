"""The tape itself: what `grad` and `backward` promise, and the traps that autograd engines fall into."""

import copy
import gc
import pickle
import threading
import weakref

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, grad, no_grad, record


def leaf(value, backend="numpy", **options):
    return Tensor(value, requires_grad=True, backend=backend, **options)


def close(a, b, tolerance=1e-12):
    np.testing.assert_allclose(np.asarray(a.numpy() if isinstance(a, Tensor) else a), b, tolerance)


# ------------------------------------------------------------------------- paths and sums


def test_the_double_diamond(backend):
    """b = a + a; c = b + b: every path counts once, and a node waits for all that came from it."""
    a = leaf(3.0, backend)
    b = a + a
    c = b + b
    close(grad(c, a), 4.0)


def test_diamonds_in_a_row_are_walked_once_each(backend):
    """2⁶⁰ paths, 60 nodes."""
    a = x = leaf(1.0, backend)
    for _ in range(60):
        x = x + x
    close(grad(x, a), 2.0**60)


def test_the_same_tensor_twice_in_one_op(backend):
    x = leaf([2.0, 3.0], backend)
    close(grad((x * x).sum(), x), [4.0, 6.0])
    close(grad((x - x).sum(), x), [0.0, 0.0])
    close(grad((x / x).sum(), x), [0.0, 0.0])
    m = leaf([[1.0, 2.0], [3.0, 4.0]], backend)
    close(grad((m @ m).sum(), m), [[7.0, 11.0], [9.0, 13.0]])
    close(grad(mg.concat([x, x, x]).sum(), x), [3.0, 3.0])


def test_backward_twice_adds_twice_and_nothing_else(backend):
    x = leaf([1.0, 2.0], backend)
    y = (x * x * x).sum()
    y.backward()
    close(x.grad, [3.0, 12.0])
    y.backward()
    close(x.grad, [6.0, 24.0])


def test_grad_touches_no_field(backend):
    x = leaf([1.0, 2.0], backend)
    y = (x * x).sum()
    first, second = grad(y, x), grad(y, x)
    close(first, second.numpy())
    assert x.grad is None


def test_gradients_of_results_of_ops(backend):
    """xs may be anything on the way, even y itself."""
    x = leaf([1.0, 2.0], backend)
    h = x * 3.0
    y = (h * h).sum()
    at_y, at_h, at_x = grad(y, [y, h, x])
    close(at_y, 1.0)
    close(at_h, [6.0, 12.0])
    close(at_x, [18.0, 36.0])


def test_the_same_x_twice_in_xs_gets_two_gradients(backend):
    x = leaf([1.0, 2.0], backend)
    one, two = grad((x * x).sum(), [x, x])
    close(one, two.numpy())
    assert not np.shares_memory(one.data, two.data)


def test_an_unreachable_input_gives_none_or_zeros(backend):
    x, other = leaf([1.0, 2.0], backend), leaf([[5.0]], backend, dtype="float32")
    y = (x * x).sum()
    assert grad(y, [x, other])[1] is None
    zeros = grad(y, [x, other], unreachable="zeros")[1]
    assert zeros.shape == (1, 1)
    assert zeros.dtype == np.float32
    close(zeros, [[0.0]])
    with pytest.raises(ValueError, match="'none' or 'zeros'"):
        grad(y, x, unreachable="nil")


def test_what_nobody_asked_for_is_not_computed():
    """A vjp whose input leads to no wanted Tensor must not run: frozen weights cost nothing."""
    ran = []

    def spy(name, a, b):
        return record(
            name,
            a.data * b.data,
            (a, lambda g: ran.append(f"{name} left") or g * b),
            (b, lambda g: ran.append(f"{name} right") or g * a),
        )

    x, w1, w2 = leaf(2.0), leaf(3.0), leaf(5.0)
    y = spy("second", spy("first", x, w1), w2)
    close(grad(y, x), 15.0)
    assert ran == ["second left", "first left"]
    ran.clear()
    w1.requires_grad_(False)
    spy("third", x, w1).backward()
    assert ran == ["third left"]


def test_a_chain_of_10000_ops(backend):
    """Neither the walk nor freeing the graph may recurse."""
    x = leaf(1.0, backend)
    y = x
    for _ in range(10_000):
        y = y * 1.0001
    close(grad(y, x), 1.0001**10_000, 1e-9)
    g = grad(y, x, create_graph=True)
    del y, g


def test_a_chain_of_200000_ops_is_freed_without_recursion():
    y = leaf(1.0)
    for _ in range(200_000):
        y = -y
    del y


def test_a_gradient_for_a_vector_must_be_given(backend):
    x = leaf([1.0, 2.0], backend)
    with pytest.raises(ValueError, match=r"backward: y has shape \(2,\).*reduce y first"):
        (x * x).backward()
    with pytest.raises(
        ValueError, match=r"backward: a gradient of shape \(3,\) for a Tensor of shape \(2,\)"
    ):
        (x * x).backward([1.0, 2.0, 3.0])
    (x * x).backward([1.0, 10.0])
    close(x.grad, [2.0, 40.0])


def test_a_result_of_size_one_needs_no_gradient(backend):
    x = leaf([[3.0]], backend)
    (x * x).backward()
    close(x.grad, [[6.0]])


# ------------------------------------------------------------------------ higher derivatives


def test_derivatives_of_every_order(backend):
    x = leaf(2.0, backend)
    y = x**5
    for expected in (80.0, 160.0, 240.0, 240.0, 120.0, 0.0):
        y = grad(y, x, create_graph=True)
        close(y, expected)


def test_backward_with_create_graph_leaves_a_gradient_that_can_be_differentiated(backend):
    x = leaf([1.0, 2.0], backend)
    (x * x * x).sum().backward(create_graph=True)
    close(grad(x.grad.sum(), x), [6.0, 12.0])


def test_without_create_graph_gradients_are_constants(backend):
    x = leaf([1.0, 2.0], backend)
    g = grad((x * x * x).sum(), x)
    assert not g.requires_grad
    with pytest.raises(ValueError, match="depends on no Tensor that requires a gradient"):
        grad(g.sum(), x)


def test_the_gradient_given_for_y_can_be_differentiated_too(backend):
    x, v = leaf([1.0, 2.0], backend), leaf([5.0, 7.0], backend)
    g = grad(x * x, x, v, create_graph=True)
    close(g, [10.0, 28.0])
    close(grad(g.sum(), v), [2.0, 4.0])


def test_grad_inside_no_grad_with_create_graph_records_the_walk():
    x = leaf(2.0)
    y = x * x * x
    with no_grad():
        g = grad(y, x, create_graph=True)
    close(grad(g, x), 12.0)


# ------------------------------------------------------------------------- what is remembered


def test_no_grad_detach_and_frozen_leaves_stop_the_history(backend):
    x = leaf([1.0, 2.0], backend)
    with no_grad():
        y = x * x
    assert not y.requires_grad
    assert not x.detach().requires_grad
    close(grad((x * x.detach()).sum(), x), [1.0, 2.0])
    x.requires_grad_(False)
    assert not (x * x).requires_grad
    x.requires_grad_()
    close(grad((x * x).sum(), x), [2.0, 4.0])


def test_no_grad_ends_on_an_exception_and_works_as_a_decorator():
    x = leaf(2.0)

    @no_grad()
    def square(t):
        return t * t

    assert not square(x).requires_grad
    with pytest.raises(KeyError), no_grad():
        raise KeyError
    assert (x * x).requires_grad


def test_no_grad_refuses_to_decorate_a_generator_and_may_call_itself():
    with pytest.raises(TypeError, match="generator"):

        @no_grad()
        def squares():
            yield 1

    x = leaf(2.0)

    @no_grad()
    def power(n):
        return x if n == 1 else power(n - 1) * x

    assert not power(5).requires_grad
    assert (x * x).requires_grad
    again = no_grad()
    for _ in range(2):
        with again, again:
            assert not (x * x).requires_grad
    assert (x * x).requires_grad


def test_under_no_grad_nothing_requires_a_gradient(backend):
    """Not even what is returned as it came."""
    x = leaf([1.0, 2.0], backend)
    with no_grad():
        results = [+x, x.sum_to((2,)), mg.broadcast_to(x, (2,)), x.to(backend), x.copy(), x.reshape(2)]
    assert not any(y.requires_grad for y in results)


def test_no_grad_in_one_thread_leaves_another_alone():
    x, seen = leaf(2.0), []

    def work():
        seen.append((x * x).requires_grad)

    with no_grad():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        assert not (x * x).requires_grad
    assert seen == [True]


def test_threads_build_and_walk_graphs_side_by_side():
    wrong = []

    def work(start):
        x = leaf(float(start))
        for _ in range(200):
            y = x
            for _ in range(20):
                y = y + x
            if float(grad(y * y, x)) != 2 * 21 * 21 * start:
                wrong.append(start)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --------------------------------------------------------------------------------- memory


def test_the_graph_is_freed_by_reference_counting_alone(backend):
    """With the collector off, a graph that contains a circle would stay."""
    rng = np.random.default_rng(0)
    gc.collect()
    gc.disable()
    try:
        before = count_nodes()
        x = leaf(rng.normal(size=(4, 3, 6, 6)), backend)
        w = leaf(rng.normal(size=(2, 3, 3, 3)), backend)
        h = mg.batch_norm(mg.leaky_relu(mg.conv2d(x, w)))
        h = mg.softmax(mg.tanh(h) / (mg.sigmoid(h) + 1.0)) + mg.exp(h) ** 0.5 + mg.silu(h) * mg.elu(h)
        y = mg.logsumexp(h, (1, 2, 3)).sum() + mg.norm(h) + mg.max_pool(h, 2).sum()
        g = grad(y, w, create_graph=True)
        penalty = (g * g).sum()
        grad(penalty, [x, w])
        penalty.backward()
        nodes = [weakref.ref(t) for t in (h, y, g, penalty)]
        arrays = [weakref.ref(t.data) for t in (h, g)] if backend == "numpy" else []
        del h, y, g, penalty
        x.grad = w.grad = None
        assert [ref() for ref in nodes + arrays] == [None] * len(nodes + arrays)
        assert count_nodes() == before + 2  # the two leaves
    finally:
        gc.enable()


def count_nodes():
    return sum(issubclass(type(o), mg.tensor.Node) for o in gc.get_objects())


def test_activations_die_as_soon_as_nobody_needs_them():
    """x + y needs neither x nor y for its gradient, x * 2 does not need x, relu not its input."""
    x = leaf(np.ones(1000))
    h = x * 2.0
    array = weakref.ref(h.data)
    y = h + 1.0
    del h
    assert array() is None
    h = y - x
    array = weakref.ref(h.data)
    z = mg.relu(h).sum() + mg.leaky_relu(h).sum() + mg.mean(h) + h.reshape(10, 100).mT.sum()
    del h
    assert array() is None
    z.backward()
    assert y is not None


def test_gradients_on_the_way_are_dropped_during_the_walk():
    """Of a long chain's gradients, only a few live at the same time."""
    alive, most = weakref.WeakSet(), [0]

    def step(x):
        def vjp(g):
            alive.add(g)
            most[0] = max(most[0], len(alive))
            return g * 1.0

        return record("step", x.data * 1.0, (x, vjp))

    y = x = leaf(np.ones(10))
    for _ in range(100):
        y = step(y)
    grad(y.sum(), x)
    assert most[0] <= 3


# -------------------------------------------------------------- nothing changes unnoticed


def test_arrays_on_the_tape_are_read_only():
    mine = np.ones(3)
    x = leaf(mine)
    y = x * x
    for t in (x, y, Tensor(mine), grad(y.sum(), x)):
        with pytest.raises(ValueError, match="read-only"):
            t.data[0] = 5.0
        with pytest.raises(TypeError, match="where"):
            t[0] = 5.0
    mine[0] = 100.0
    close(grad(y.sum(), x), [2.0, 2.0, 2.0])


def test_an_array_in_an_expression_is_copied_too():
    mine, mask, index = np.ones(3), np.array([True, False, True]), np.array([0, 0, 1])
    x = leaf([1.0, 2.0, 3.0])
    y = x * mine + mg.where(mask, x, 0.0) + x[index]
    mine[:], mask[:], index[:] = 7.0, False, 2
    close(grad(y.sum(), x), [4.0, 2.0, 2.0])


def test_a_leaf_changed_after_use_is_an_error_not_a_wrong_gradient(backend):
    x, w = leaf([1.0, 2.0], backend), leaf([3.0, 4.0], backend, name="weight")
    y = (x * w).sum()
    w.data = [30.0, 40.0]
    with pytest.raises(RuntimeError, match=r"mul: its input 'weight' of shape \(2,\) has been given a new"):
        grad(y, x)
    with pytest.raises(RuntimeError, match="compute y again"):
        y.backward()
    close(grad((x * w).sum(), x), [30.0, 40.0])


def test_a_frozen_leaf_changed_after_use_is_noticed_too(backend):
    x, w = leaf([1.0, 2.0], backend), leaf([3.0, 4.0], backend)
    w.requires_grad_(False)
    y = (x * w).sum()
    w.data = [30.0, 40.0]
    w.requires_grad_()
    with pytest.raises(RuntimeError, match="given a new value"):
        y.backward()


def test_a_change_between_first_and_second_derivative_is_noticed():
    x = leaf(2.0)
    g = grad(x * x * x, x, create_graph=True)
    x.data = 5.0
    with pytest.raises(RuntimeError, match="given a new value"):
        grad(g, x)


def test_leaves_take_new_values_of_their_own_shape_and_dtype(backend):
    w = leaf([1.0, 2.0], backend, dtype="float32")
    w.data = [5, 6]
    assert w.dtype == np.float32
    assert w.backend == backend
    close(w, [5.0, 6.0])
    with pytest.raises(ValueError, match=r"data = an array of shape \(3,\) for a Tensor of shape \(2,\)"):
        w.data = [1.0, 2.0, 3.0]
    for t in (w * 2.0, Tensor([1.0]), w.detach()):
        with pytest.raises(TypeError, match="only a leaf"):
            t.data = t.data


@pytest.mark.parametrize(
    "op", ["__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__", "__imatmul__"]
)
def test_in_place_operators_on_a_leaf_are_refused(op):
    with pytest.raises(TypeError, match=r"w\.data = w\.data - x"):
        getattr(leaf([[1.0]]), op)(Tensor([[1.0]]))


def test_in_place_operators_elsewhere_make_a_new_tensor():
    x = leaf([1.0, 2.0])
    y = before = x * 2.0
    y += 1.0
    assert y is not before
    close(before, [2.0, 4.0])
    close(grad(y.sum(), x), [2.0, 2.0])


def test_copy_false_takes_an_array_over():
    mine = np.ones(3)
    t = Tensor(mine, copy=False)
    assert np.shares_memory(t.data, mine)
    assert not mine.flags.writeable


def test_gradients_share_no_memory(backend):
    a, b, c = (leaf(np.ones((2, 3)), backend) for _ in range(3))
    g = Tensor(np.ones((3, 2)), backend=backend)
    ga, gb, gc = grad((a + b).mT + c.reshape(3, 2), [a, b, c], g)
    arrays = [ga.data, gb.data, gc.data, g.data]
    for i, one in enumerate(arrays):
        for other in arrays[i + 1 :]:
            assert not np.shares_memory(one, other)
        assert one is g.data or one.base is None or backend == "strict"


def test_the_grad_field_can_be_cleared_and_set_on_leaves_only(backend):
    x = leaf([1.0, 2.0], backend)
    (x * x).sum().backward()
    x.grad = None
    assert x.grad is None
    x.grad = Tensor([1.0, 1.0], backend=backend)
    (x * x).sum().backward()
    close(x.grad, [3.0, 5.0])
    x.grad = [2.0, 3.0]  # as backward(...) takes it, too
    close(x.grad, [2.0, 3.0])
    assert x.grad.backend == backend
    with pytest.raises(ValueError, match="grad =: a gradient of shape"):
        x.grad = Tensor([1.0], backend=backend)
    with pytest.raises(TypeError, match="only a leaf"):
        (x * x).grad = x.grad


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_are_tensors_of_their_own(duplicate, backend):
    w = leaf([1.0, 2.0], backend, name="w")
    (w * w).sum().backward()
    twin = duplicate(w)
    assert twin.requires_grad
    assert twin.node is not w.node
    close(twin.grad, [2.0, 4.0])
    if type(w.data) is np.ndarray:  # others have no such flag
        with pytest.raises(ValueError, match="read-only"):
            twin.data[...] = 7.0
    y = (w * twin).sum()
    close(grad(y, [w, twin])[0], [1.0, 2.0])
    twin.data = [5.0, 5.0]
    close(w, [1.0, 2.0])
    with pytest.raises(RuntimeError, match="given a new value"):
        grad(y, w)
    constant = duplicate(Tensor([1.0], backend=backend))
    assert not constant.requires_grad
    assert type(w.data) is not np.ndarray or not constant.data.flags.writeable
    w.requires_grad_(False)
    assert not duplicate(w).requires_grad
    with pytest.raises(TypeError, match="detach"):
        duplicate(twin * twin)


def test_a_constant_that_becomes_a_leaf_late_keeps_its_value():
    """Ops that used it before noted no version, so a new value could not be noticed."""
    x, c = leaf(2.0), Tensor(3.0)
    y = x * c
    c.requires_grad_()
    with pytest.raises(TypeError, match="from the start"):
        c.data = 5.0
    close(grad(y, x), 3.0)
    close(grad(x * c, c), 2.0)


def test_freezing_between_forward_and_a_recorded_walk_is_an_error():
    """A vjp would take the leaf for a constant in one factor and for a variable in another."""
    x, w = leaf(1.0), leaf(2.0)
    w.requires_grad_(False)
    y = (x * w) * (w * w)
    w.requires_grad_()
    with pytest.raises(RuntimeError, match="no longer frozen"):
        grad(y, x, create_graph=True)
    close(grad(y, x), 8.0)
    y = (x * w) * (w * w)
    w.requires_grad_(False)
    with pytest.raises(RuntimeError, match="half of a second derivative"):
        grad(y, x, create_graph=True)
    y = (x * w) * (w * w)
    close(grad(y, x, create_graph=True), 8.0)


def test_a_leaf_frozen_after_the_forward_collects_no_gradient(backend):
    x, w = leaf(2.0, backend), leaf(3.0, backend)
    (x * w).backward()
    y = x * x * w
    w.requires_grad_(False)
    y.backward()
    close(x.grad, 3.0 + 12.0)
    close(w.grad, 2.0)  # that of before
    with pytest.raises(ValueError, match=r"xs\[0\] does not require a gradient"):
        grad(y, w)
    close(grad(y, x), 12.0)
    with pytest.raises(RuntimeError, match="half of a second derivative"):
        y.backward(create_graph=True)
    close(x.grad, 15.0)
    w.requires_grad_()
    y.backward(create_graph=True)
    close(w.grad, 2.0 + 4.0)


def test_indices_masks_and_slices_are_copied():
    x = leaf([1.0, 2.0, 3.0])
    view = np.array([0])
    index, start, stop = np.broadcast_to(view, (2,)), np.array(0), np.array(2)
    c = leaf([1.0, 0.0, 1.0])
    y = x[index].sum() + x[start:stop].sum() + mg.where(c, x, 0.0).sum()
    view[0], start[...], stop[...], c.data = 2, 1, 3, [0.0, 1.0, 0.0]
    close(grad(y, x), [4.0, 1.0, 1.0])  # twice x[0]; x[0] and x[1]; x[0] and x[2]


# --------------------------------------------------------------------- mistakes in an op


def test_a_vjp_that_returns_an_array_is_refused():
    x = leaf([1.0, 2.0])
    y = record("bad", x.data * 2, (x, lambda g: g.data * 2))
    with pytest.raises(TypeError, match="a vjp of op 'bad' returned ndarray"):
        y.sum().backward()


def test_a_vjp_that_forgets_to_sum_a_broadcast_input_is_refused():
    x, b = leaf(np.ones((4, 2))), leaf(np.ones(2))
    y = record("bad", x.data + b.data, (x, lambda g: g), (b, lambda g: g))
    with pytest.raises(ValueError, match=r"op 'bad' returned shape \(4, 2\) for its input of shape \(2,\)"):
        y.sum().backward()


def test_a_failed_walk_leaves_the_engine_as_it_was():
    x = leaf([1.0, 2.0])
    y = record("bad", x.data * 2, (x, lambda g: g.data * 2))
    for _ in range(2):
        with pytest.raises(TypeError):
            grad(y.sum(), x)
    assert (x * x).requires_grad


def test_what_needs_no_gradient_says_so():
    x, constant = leaf(2.0), Tensor(3.0)
    with pytest.raises(ValueError, match=r"xs\[1\] does not require a gradient"):
        grad(x * constant, [x, constant])
    with pytest.raises(ValueError, match="grad: y depends on no Tensor"):
        grad(constant * constant, x)
    with pytest.raises(ValueError, match="backward: y depends on no Tensor"):
        constant.backward()
    with pytest.raises(TypeError, match=r"dtype int64 has no gradient"):
        Tensor([1, 2, 3], requires_grad=True)
    with pytest.raises(TypeError, match=r"dtype bool has no gradient"):
        Tensor([True]).requires_grad_()
    with pytest.raises(TypeError, match="detach"):
        (x * x).requires_grad_(False)
    with pytest.raises(TypeError, match="history"):
        Tensor(x * x)
