"""Mistakes that autograd engines are known to make in single ops, each pinned by a test of its name.

Those of the tape itself (diamonds, backward twice, long chains, freed graphs) are in test_tape.py.
"""

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, grad


def leaf(value, backend="numpy"):
    return Tensor(value, requires_grad=True, backend=backend)


def close(a, b, tolerance=1e-12):
    """Equal, up to a share of the largest entry."""
    b = np.asarray(b, float)
    finite = np.abs(b[np.isfinite(b)])
    np.testing.assert_allclose(a.numpy(), b, rtol=0, atol=tolerance * finite.max(initial=1e-15))


def differences(f, x, h=1e-5):
    """df/dx by central differences, entry by entry, for f from array to number."""
    slope = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += h
        down[i] -= h
        slope[i] = (f(up) - f(down)) / (2 * h)
    return slope


def test_repeated_indices_in_getitem_add_up(backend):
    x = leaf([1.0, 2.0, 3.0], backend)
    g = grad((x[[0, 0, 2, 0]] * Tensor([1.0, 10.0, 100.0, 1000.0], backend=backend)).sum(), x)
    close(g, [1011.0, 0.0, 100.0])


def test_repeated_embedding_rows_add_up_to_second_order(backend):
    table = leaf([[1.0, 2.0], [3.0, 4.0]], backend)
    rows = mg.take(table, [1, 1, 0])
    g = grad((rows**3).sum(), table, create_graph=True)
    close(g, [[3.0, 12.0], [54.0, 96.0]])
    close(grad(g.sum(), table), [[6.0, 12.0], [36.0, 48.0]])


def test_max_ties_share_the_gradient(backend):
    x = leaf([[2.0, 5.0, 5.0], [7.0, 7.0, 7.0]], backend)
    close(grad(x.max(axis=1).sum(), x), [[0.0, 0.5, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    close(grad(x.max(), x), [[0.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    close(grad((-x).min(axis=0).sum(), x), [[0.0, 0.0, 0.0], [-1.0, -1.0, -1.0]])


def test_maximum_and_minimum_ties_share_the_gradient(backend):
    a, b = leaf([1.0, 2.0, 3.0], backend), leaf([3.0, 2.0, 1.0], backend)
    for op, of_a in ((mg.maximum, [0.0, 0.5, 1.0]), (mg.minimum, [1.0, 0.5, 0.0])):
        ga, gb = grad(op(a, b).sum(), [a, b])
        close(ga, of_a)
        close(gb, of_a[::-1])
    close(grad(mg.maximum(a, a).sum(), a), [1.0, 1.0, 1.0])


def test_max_pool_ties_share_the_gradient(backend):
    x = leaf(np.ones((1, 1, 2, 2)), backend)
    close(grad(mg.max_pool(x, 2).sum(), x), np.full((1, 1, 2, 2), 0.25))


def test_norm_at_zero_has_gradient_zero_to_second_order(backend):
    x = leaf([[0.0, 0.0], [3.0, 4.0]], backend)
    g = grad(mg.norm(x, axis=1).sum(), x, create_graph=True)
    close(g, [[0.0, 0.0], [0.6, 0.8]])
    second = grad((g * g).sum() + mg.norm(x, axis=1).sum(), x)
    assert np.isfinite(second.numpy()).all()


def test_powers_at_zero(backend):
    x = leaf([0.0, 2.0], backend)
    for n, first, second in (
        (0, [0, 0], [0, 0]),
        (1, [1, 1], [0, 0]),
        (2, [0, 4], [2, 2]),
        (3, [0, 12], [0, 12]),
    ):
        g = grad((x**n).sum(), x, create_graph=True)
        close(g, first)
        close(grad(g.sum(), x, unreachable="zeros"), second)
    exponent = leaf([2.0, 3.0], backend)
    close(grad((x**exponent).sum(), exponent), [0.0, 8 * np.log(2)])


def test_where_keeps_the_infinity_of_the_other_branch_out(backend):
    x = leaf([0.0, 4.0], backend)
    with np.errstate(divide="ignore"):
        close(grad(mg.where(x > 0, mg.log(mg.where(x > 0, x, 1.0)), 0.0).sum(), x), [0.0, 0.25])


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_a_stride_that_does_not_divide(stride, backend):
    """The rows at the end that no kernel reaches still belong to the image: gradient 0, right shape."""
    rng = np.random.default_rng(stride)
    x, w = leaf(rng.normal(size=(2, 3, 9, 8)), backend), leaf(rng.normal(size=(4, 3, 3, 2)), backend)
    y = mg.conv2d(x, w, stride=stride)
    v = rng.normal(size=y.shape)
    gx, gw = grad(y, [x, w], v, create_graph=True)

    def along_v(a, b):
        with mg.no_grad():
            return (mg.conv2d(a, b, stride=stride).numpy() * v).sum()

    close(gx, differences(lambda a: along_v(a, w.numpy()), x.numpy().copy()), 1e-7)
    close(gw, differences(lambda b: along_v(x.numpy(), b), w.numpy().copy()), 1e-7)
    second = grad((gx * gx).sum(), w)

    def squared(b):
        with mg.no_grad():
            back = mg.ops.conv._conv_transpose(
                Tensor(v), Tensor(b), mg.kernels.conv.Geometry(stride=(stride, stride)), (9, 8)
            )
            return (back.numpy() ** 2).sum()

    close(second, differences(squared, w.numpy().copy()), 1e-6)


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_batch_norm_differentiated_twice(training, backend):
    """x̂ and 1/σ depend on x: saved as arrays they give a right gradient and a wrong second one."""
    rng = np.random.default_rng(1)
    array, gamma, beta = rng.normal(size=(5, 3, 2)) * 2 + 1, rng.normal(size=3), rng.normal(size=3)
    running = None if training else (rng.normal(size=3).tolist(), (rng.random(3) + 0.5).tolist())
    v = rng.normal(size=array.shape)

    def penalty(a, c):
        x, weight = leaf(a, backend), leaf(c, backend)
        y = mg.batch_norm(x, weight, Tensor(beta, backend=backend), running=running)
        g = grad((y * y * Tensor(v, backend=backend)).sum(), x, create_graph=True)
        return (g * g).sum(), x, weight

    value, x, weight = penalty(array, gamma)
    gx, gw = grad(value, [x, weight])
    close(gx, differences(lambda a: float(penalty(a, gamma)[0]), array), 1e-6)
    close(gw, differences(lambda c: float(penalty(array, c)[0]), gamma), 1e-6)


def test_batch_norm_with_and_without_create_graph_agree(backend):
    rng = np.random.default_rng(2)
    x = leaf(rng.normal(size=(6, 3, 2, 2)), backend)
    y, v = mg.batch_norm(x), rng.normal(size=(6, 3, 2, 2))
    close(grad(y, x, v), grad(y, x, v, create_graph=True).numpy(), 1e-10)


def test_batch_norm_in_float32_far_from_zero(backend):
    """E[x²] - E[x]² would lose every digit here."""
    rng = np.random.default_rng(3)
    array = rng.normal(size=(64, 2)) + 3000.0
    y = mg.batch_norm(Tensor(array.astype("f4"), backend=backend))
    close(y, mg.batch_norm(Tensor(array.astype("f4").astype("f8"))).numpy(), 1e-3)
    assert abs(y.numpy().std() - 1) < 1e-3


def test_large_inputs_overflow_nowhere(backend):
    x = leaf([-1000.0, -40.0, 0.0, 40.0, 1000.0], backend)
    for op, value, slope in (
        (mg.sigmoid, [0, np.exp(-40), 0.5, 1, 1], [0, np.exp(-40), 0.25, 0, 0]),
        (mg.softplus, [0, np.exp(-40), np.log(2), 40, 1000], [0, np.exp(-40), 0.5, 1, 1]),
        (mg.silu, [0, -40 * np.exp(-40), 0, 40, 1000], [0, -39 * np.exp(-40), 0.5, 1, 1]),
        (mg.tanh, [-1, -1, 0, 1, 1], [0, 0, 1, 0, 0]),
        (mg.elu, [-1, np.expm1(-40), 0, 40, 1000], [0, np.exp(-40), None, 1, 1]),
    ):
        y = op(x)
        close(y, value, 1e-12)
        got = grad(y.sum(), x).numpy()
        for g, expected in zip(got, slope, strict=True):
            assert expected is None or g == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_logsumexp_and_softmax_of_extremes(backend):
    x = leaf([[1000.0, 0.0, -1000.0], [-np.inf, 0.0, 0.0], [-np.inf, -np.inf, -np.inf]], backend)
    y = mg.logsumexp(x, axis=1)
    close(y, [1000.0, np.log(2), -np.inf])
    close(grad(y, x, [1.0, 1.0, 1.0]), [[1, 0, 0], [0, 0.5, 0.5], [0, 0, 0]])
    close(mg.softmax(x[:2], axis=1), [[1, 0, 0], [0, 0.5, 0.5]])
    close(mg.log_softmax(x[:1], axis=1), [[0, -1000, -2000]])


def test_a_numpy_array_on_the_left_does_not_swallow_the_tensor():
    x = leaf([1.0, 2.0])
    y = np.array([3.0, 4.0]) * x
    assert type(y) is Tensor
    close(grad(y.sum(), x), [3.0, 4.0])
    z = np.float64(2.0) * x
    assert type(z) is Tensor
    assert type(np.ones((2, 2)) @ x) is Tensor
    assert type(np.ones(2) - x) is Tensor


def test_a_mask_does_not_raise_the_precision(backend):
    """bool * 0.8 is float64 in NumPy, even when everything else is float32."""
    x = leaf(np.array([-1.0, 0.5, 2.0], "f4"), backend)
    for op in (
        mg.relu,
        mg.leaky_relu,
        mg.abs,
        mg.elu,
        lambda t: mg.clip(t, 0, 1),
        lambda t: mg.maximum(t, 0.1),
    ):
        part = mg.tensor._pull(*_last_edge(op(x)))
        assert part.dtype == np.float32


def _last_edge(y):
    (_, vjp, _), g = y.node.edges[0], Tensor(np.ones(y.shape, y.dtype), backend=y.backend)
    return y.node, vjp, g


def test_a_gradient_penalty_through_conv_leaky_relu_batch_norm_and_linear(backend):
    """mean over samples of (‖∇ₓ D(x)‖ - 1)², differentiated with respect to all weights of D."""
    rng = np.random.default_rng(4)
    image = rng.normal(size=(4, 2, 6, 6))
    weights = [
        rng.normal(size=(3, 2, 3, 3)) * 0.5,
        rng.normal(size=3),
        rng.normal(size=3) + 1,
        rng.normal(size=3),
        rng.normal(size=(1, 27)),
        rng.normal(size=1),
    ]

    def penalty(arrays):
        w, b, gamma, beta, v, c = ts = [leaf(a, backend) for a in arrays]
        x = leaf(image, backend)
        h = mg.leaky_relu(mg.conv2d(x, w, b, stride=2, padding=1), 0.2)
        h = mg.batch_norm(h, gamma, beta)
        logits = mg.linear(h.reshape(4, -1), v, c)
        gx = grad(logits.sum(), x, create_graph=True)
        return ((mg.norm(gx.reshape(4, -1), axis=1) - 1) ** 2).mean(), ts

    value, ts = penalty(weights)
    gradients = grad(value, ts, unreachable="zeros")
    for i, g in enumerate(gradients):

        def value_with(a, i=i):
            return float(penalty([*weights[:i], a, *weights[i + 1 :]])[0])

        expected = differences(value_with, weights[i])
        assert np.abs(g.numpy() - expected).max() < 1e-6 * max(1.0, np.abs(expected).max())
        assert np.abs(expected).max() > 1e-3 or i in (3, 5)  # β and c are the two that drop out
