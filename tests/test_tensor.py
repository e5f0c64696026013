"""A Tensor feels like an array: operators, indexing, conversions, printing."""

import math
import operator

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, grad


def leaf(value, backend="numpy", **options):
    return Tensor(value, requires_grad=True, backend=backend, **options)


BINARY = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow, operator.matmul]


@pytest.mark.parametrize("op", BINARY, ids=lambda op: op.__name__)
def test_operators_with_tensors_arrays_lists_and_scalars_on_both_sides(op):
    """A NumPy array on the left must not swallow the Tensor: the result is a Tensor with a history."""
    a, b = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[0.5, 1.5], [2.5, 1.0]])
    x = leaf(a)
    others = [Tensor(b), b, b.tolist()]
    if op is not operator.matmul:
        others += [2.0, 3, np.float64(1.5), np.int64(2), np.array(2.0), True]
    for other in others:
        array = other.data if isinstance(other, Tensor) else np.asarray(other)
        for got, expected in ((op(x, other), op(a, array)), (op(other, x), op(array, a))):
            assert type(got) is Tensor
            assert got.requires_grad
            np.testing.assert_array_equal(got.data, expected)
            assert grad(got.sum(), x).shape == a.shape


def test_unary_operators():
    x = leaf([-1.0, 2.0])
    np.testing.assert_array_equal((-x).data, [1.0, -2.0])
    np.testing.assert_array_equal((+x).data, [-1.0, 2.0])
    np.testing.assert_array_equal(abs(x).data, [1.0, 2.0])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_python_numbers_do_not_change_the_precision(dtype, backend):
    x = leaf(np.array([1.0, 2.0], dtype), backend)
    for y in (x * 2.0, 2.0 * x, x + 1, 1 - x, x / 3, 3 / x, x**2, x**0.5, 2**x, mg.maximum(x, 0.5)):
        assert y.dtype == dtype
        assert grad(y.sum(), x).dtype == dtype
    assert mg.where(x > 1, x, 0.0).dtype == dtype
    assert mg.where(x > 1, 0.0, x).dtype == dtype


def test_mixed_precision_gives_each_input_a_gradient_of_its_own(backend):
    x, y = leaf(np.ones(3, "f4"), backend), leaf(np.ones(3, "f8"), backend)
    z = x * y
    assert z.dtype == np.float64
    gx, gy = grad(z.sum(), [x, y])
    assert (gx.dtype, gy.dtype) == (np.float32, np.float64)


@pytest.mark.parametrize("op", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_comparisons_give_plain_boolean_arrays(op):
    a, b = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])
    for got in (op(leaf(a), leaf(b)), op(leaf(a), b), op(leaf(a), 2.0)):
        assert type(got) is np.ndarray
        np.testing.assert_array_equal(got, op(a, b))
    np.testing.assert_array_equal(op(b, leaf(a)), op(b, a))


def test_a_tensor_is_itself_as_a_key():
    x, y = leaf([1.0]), leaf([1.0])
    assert {x: "x", y: "y"}[y] == "y"


def test_properties(backend):
    x = leaf(np.ones((2, 3, 4), "f4"), backend)
    assert (x.shape, x.ndim, x.size, x.dtype, x.backend, len(x)) == ((2, 3, 4), 3, 24, np.float32, backend, 2)
    assert x.T.shape == (4, 3, 2)
    assert x.mT.shape == (2, 4, 3)
    assert x.sum(axis=1).shape == (2, 4)
    assert x.mean((0, -1), keepdims=True).shape == (1, 3, 1)
    assert x.max().shape == x.min().shape == x.var().shape == ()
    assert x.reshape(-1).shape == x.reshape((6, -1)).reshape(24).shape == (24,)
    assert x.transpose(1, 0, 2).shape == x.transpose((1, 0, 2)).shape == (3, 2, 4)
    assert x.astype("f8").dtype == np.float64


def test_reductions_of_everything_are_0d_arrays(backend):
    x = leaf([1.0, 2.0], backend)
    for y in (
        x.sum(),
        x.mean(),
        x.max(),
        x[0],
        x[0] * x[1],
        mg.exp(x[0]),
        mg.norm(x),
        mg.logsumexp(x),
        x @ x,
    ):
        assert isinstance(y.data, type(x.data))
        assert y.shape == ()


INDICES = [
    0,
    -1,
    slice(1, None),
    slice(None, None, -2),
    (1, 2),
    (Ellipsis, 0),
    (None, 1),
    (slice(None), [0, 2, 2]),
    ([0, 1, 1], [0, 0, 0]),
    np.array([[True, False, True, False]] * 3),
    ([True, False, True],),
    (np.array([2, -1]), slice(1, 3)),
    (slice(None), np.array([], int)),
    np.int64(1),
    [],
    (),
    Ellipsis,
    None,
    True,
]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_indexing_as_in_numpy(index, backend):
    a = np.arange(12.0).reshape(3, 4)
    x = leaf(a, backend)
    y = x[index]
    if isinstance(index, list) and not index:
        index = np.array([], int)  # which is how NumPy, too, understands x[[]]
    np.testing.assert_array_equal(y.numpy(), a[index])
    expected = np.zeros_like(a)
    np.add.at(expected, index, 1.0)
    np.testing.assert_array_equal(grad(y.sum(), x).numpy(), expected)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ([0, 3], "index 3 is out of bounds for axis 0 with size 3"),
        (np.array([[-4, 1]]), "index -4 is out of bounds for axis 0 with size 3"),
        ((slice(None), [0, 4]), "index 4 is out of bounds for axis 1 with size 4"),
        ((Ellipsis, [5]), "index 5 is out of bounds for axis 2 with size 5"),
        ((None, 0, Ellipsis, [7], slice(1)), "index 7 is out of bounds for axis 1 with size 4"),
        (([True, False, True], [0, 4]), "index 4 is out of bounds for axis 1 with size 4"),
        ((np.ones((3, 4), bool), [5] * 12), "index 5 is out of bounds for axis 2 with size 5"),
    ],
    ids=str,
)
def test_positions_outside_are_refused(index, says, backend):
    x = Tensor(np.ones((3, 4, 5)), backend=backend)
    for there in (lambda: x[index], lambda: mg.scatter_add(x, index, x.shape)):
        with pytest.raises(IndexError, match=says):
            there()


def test_take_refuses_positions_outside(backend):
    x = Tensor(np.ones((3, 4)), backend=backend)
    for wrong in ([0, 4], np.array(4), [[-5]]):
        with pytest.raises(IndexError, match=r"take: index (4|-5) is out of bounds for axis 1 with size 4"):
            mg.take(x, wrong, axis=1)
    assert mg.take(x, [], axis=1).shape == (3, 0)
    assert mg.take(x, [-4, 3], axis=1).shape == (3, 2)


def test_tensors_as_indices(backend):
    x = leaf([1.0, 2.0, 3.0], backend)
    i = Tensor([2, 0, 2], backend=backend)
    np.testing.assert_array_equal(x[i].numpy(), [3.0, 1.0, 3.0])
    np.testing.assert_array_equal(x[x > 1.5].numpy(), [2.0, 3.0])
    with pytest.raises(IndexError, match="whole numbers"):
        x[x]


def test_iteration_and_unpacking():
    x = leaf([[1.0, 2.0], [3.0, 4.0]])
    first, second = x
    assert first.requires_grad
    np.testing.assert_array_equal(second.data, [3.0, 4.0])
    assert len(list(Tensor(np.zeros((0, 3))))) == 0
    for wrong in (len, list):
        with pytest.raises(TypeError, match="0-d Tensor"):
            wrong(Tensor(1.0))


def test_single_numbers_convert(backend):
    x = leaf([[2.5]], backend)
    assert (x.item(), float(x), int(x), bool(x)) == (2.5, 2.5, 2, True)
    assert math.sqrt(Tensor(4.0)) == 2.0
    assert f"{x:.2f}" == "2.50"
    for convert in (float, int, Tensor.item):
        with pytest.raises(ValueError, match=r"item: only a single number converts.*\(2,\)"):
            convert(Tensor([1.0, 2.0], backend=backend))


def test_numpy_gets_the_value_but_not_by_accident(backend):
    x = Tensor([1.0, 2.0], backend=backend)
    assert type(x.numpy()) is np.ndarray
    assert type(np.asarray(x)) is np.ndarray
    np.testing.assert_array_equal(np.array(x, dtype="f4"), [1.0, 2.0])
    with pytest.raises(TypeError, match=r"NumPy would lose.*detach"):
        np.asarray(leaf([1.0]))
    with pytest.raises(TypeError):
        np.exp(leaf([1.0]))


def test_repr_shows_value_dtype_backend_and_op(backend):
    x = leaf(np.array([1.0, 2.0], "f4"), backend, name="x")
    assert repr(x) == f"Tensor([1., 2.], dtype=float32, backend={backend}, op=x)"
    assert repr(mg.exp(x * 0.0)) == f"Tensor([1., 1.], dtype=float32, backend={backend}, op=exp)"
    assert repr(x.detach()) == f"Tensor([1., 2.], dtype=float32, backend={backend})"
    assert str(x) == f"{x}" == repr(x)
    assert "..." in repr(Tensor(np.zeros((1000, 1000))))


def test_tensors_are_made_of_numbers():
    assert Tensor([1, 2]).dtype.kind == "i"
    assert Tensor([1.0, 2.0]).dtype == np.float64
    assert Tensor([1.0, 2.0], dtype="float32").dtype == np.float32
    assert Tensor(Tensor([1.0]), requires_grad=True).requires_grad
    assert type(Tensor(np.ones(2).view(type("Mine", (np.ndarray,), {}))).data) is np.ndarray
    for wrong in (None, "text", ["a", "b"], {"a": 1}, object(), 1j, np.datetime64("2014-06-10")):
        with pytest.raises(TypeError, match="cannot make a Tensor"):
            Tensor(wrong)
    with pytest.raises(ValueError, match="cannot make a Tensor of this list"):
        Tensor([[1.0, 2.0], [3.0]])
    with pytest.raises(TypeError):
        Tensor([1.0]) + "text"
    with pytest.raises(TypeError):
        Tensor([1.0]) * None


def test_arrays_of_foreign_byte_order_and_subclasses_are_fine():
    x = leaf(np.array([1.0, 2.0], ">f4"))
    np.testing.assert_array_equal(grad((x * x).sum(), x).numpy(), [2.0, 4.0])
