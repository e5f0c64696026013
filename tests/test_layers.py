"""Every layer of the table in layers_table.py, checked in every way we know; then what only some have."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layers_table import ELSEWHERE, LAYERS

from minigan import Tensor, grad, gradcheck, nn, no_grad
from minigan.draw import trace

seeds = st.integers(0, 2**32 - 1)
each_layer = pytest.mark.parametrize("line", LAYERS, ids=lambda line: line.name)


def run(check, line, backend):
    """A check on cases that Hypothesis draws; in evaluation, and in training where that differs."""

    @given(case=line.cases, seed=seeds)
    def body(case, seed):
        for training in (False, True)[: 1 + line.two_modes]:
            check(case, seed, backend, training)

    body()


def same(layer, *inputs):
    """What the layer makes of the inputs, without leaving a trace in it."""
    return deepcopy(layer)(*inputs).numpy()


def assert_same_state(a, b):
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


# --------------------------------------------------------------------------------- the table


def test_every_layer_is_in_the_table():
    public = {
        name
        for name, value in vars(nn).items()
        if isinstance(value, type) and issubclass(value, nn.Module) and value not in (nn.Module, nn.Layer)
    }
    names = [line.name for line in LAYERS]
    assert len(names) == len(set(names))
    assert set(names) | ELSEWHERE >= public, "add the new layer to tests/layers_table.py"
    assert public >= set(names)


def check_gradients(case, seed, backend, training):
    """Every derivative to second order, for inputs and parameters, is what finite differences say."""
    layer = case.used(seed, backend).train(training)
    named = list(layer.named_parameters())

    def function(*values):
        fresh = deepcopy(layer)  # the same running averages and the same dropout in every call
        for (name, _), value in zip(named, values[len(case.inputs) :], strict=True):
            *path, last = name.split(".")
            owner = fresh
            for child in path:
                owner = getattr(owner, child)
            setattr(owner, last, value)
        return fresh(*values[: len(case.inputs)])

    function.__name__ = type(layer).__name__
    gradcheck(function, *case.tensors(seed, backend), *(p for _, p in named), seed=seed)


@each_layer
def test_derivatives(line, backend):
    run(check_gradients, line, backend)


def check_precision(case, seed, backend, training):
    """What comes out has the precision of what goes in; gradients and running averages have it, too."""
    made = case.make(np.random.default_rng(seed)).state_dict().values()
    assert all(value.dtype in ("float32", "int64") for value in made), "not in float32 to begin with"
    outputs = {}
    for dtype in ("float64", "float32"):
        layer, inputs = case.used(seed, backend, dtype).train(training), case.tensors(seed, backend, dtype)
        dtypes = [value.dtype for value in layer.state_dict().values()]
        with trace(show=False) as t:
            y = layer(*inputs)
            wanted = [x for x in (*inputs, *layer.parameters()) if x.requires_grad]
            gradients = grad(y, wanted, np.ones(y.shape), create_graph=True, unreachable="zeros")
        assert y.backend == backend
        assert y.dtype == dtype
        assert [g.dtype for g in gradients] == [dtype] * len(wanted)
        assert [value.dtype for value in layer.state_dict().values()] == dtypes
        other = [f"{event.phase} of {event.op}" for event in t.events if event.dtype != dtype]
        assert not other, f"not in {dtype}: {other}"
        outputs[dtype] = y.numpy()
    scale = max(1.0, np.abs(outputs["float64"]).max(initial=0))
    np.testing.assert_allclose(outputs["float32"], outputs["float64"], rtol=1e-4, atol=1e-4 * scale)


@each_layer
def test_precision(line, backend):
    run(check_precision, line, backend)


def check_evaluation(case, seed, backend, training):
    """Evaluation changes nothing, gives the same result again, and looks at each example by itself."""
    if training:
        return
    layer, inputs = case.used(seed, backend).eval(), case.tensors(seed, backend)
    before = layer.state_dict()
    y = layer(*inputs).numpy()
    np.testing.assert_array_equal(layer(*inputs).numpy(), y)
    assert_same_state(before, layer.state_dict())
    for i in range(len(y)):  # all examples but number i become others
        arrays = case.values(seed + 1)
        for array, x in zip(arrays, inputs, strict=True):
            array[i] = x.numpy()[i]
        mixed = layer(*(Tensor(array, backend=backend) for array in arrays))
        np.testing.assert_allclose(mixed.numpy()[i], y[i], rtol=1e-12, atol=1e-12)


@each_layer
def test_evaluation(line, backend):
    run(check_evaluation, line, backend)


def check_state(case, seed, backend, training):
    """Another layer of the same kind becomes this one when it loads its state."""
    layer, inputs = case.used(seed, backend).train(training), case.tensors(seed, backend)
    twin = case.layer(seed + 1, backend).train(training)
    state = layer.state_dict()
    twin.load_state_dict(state)
    assert_same_state(twin.state_dict(), state)
    if not any(isinstance(module, nn.Dropout) and training for module in layer.modules()):
        np.testing.assert_array_equal(same(twin, *inputs), same(layer, *inputs))


@each_layer
def test_state_goes_from_one_layer_to_another(line, backend):
    run(check_state, line, backend)


@each_layer
def test_training_differs_from_evaluation_where_the_table_says_so(line):
    differences = []

    @given(case=line.cases, seed=seeds)
    def body(case, seed):
        layer, inputs = case.used(seed), case.tensors(seed)
        differences.append(not np.array_equal(same(layer.train(), *inputs), same(layer.eval(), *inputs)))

    body()
    assert any(differences) == line.two_modes


# ------------------------------------------------------------------------ batch normalisation

BATCH_NORMS = {
    "1d": (lambda **k: nn.BatchNorm1d(3, **k), (5, 3)),
    "signals": (lambda **k: nn.BatchNorm1d(3, **k), (2, 3, 7)),
    "2d": (lambda **k: nn.BatchNorm2d(3, **k), (2, 3, 3, 5)),
    "conditional": (lambda **k: nn.ConditionalBatchNorm(3, 1, **k), (2, 3, 3, 5)),
}
each_batch_norm = pytest.mark.parametrize("kind", BATCH_NORMS)


def some_batches(kind, rng, count=3):
    shape = BATCH_NORMS[kind][1]
    return [rng.normal(2.0, 3.0, shape) for _ in range(count)]


def apply(layer, x, backend):
    x = Tensor(x, backend=backend)
    return layer(x, np.zeros(len(x), int)) if isinstance(layer, nn.ConditionalBatchNorm) else layer(x)


def per_channel(values, x):
    return np.reshape(values, (1, -1, *[1] * (x.ndim - 2)))


@each_batch_norm
@pytest.mark.parametrize("momentum", [0.1, 0.4, 1.0, None])
@pytest.mark.parametrize("recording", [True, False])
def test_running_averages(kind, momentum, recording, backend, rng):
    """After training they are the averages of the formula, and evaluation uses them, and nothing else."""
    layer = BATCH_NORMS[kind][0](momentum=momentum).to(backend, "float64")
    batches = some_batches(kind, rng)
    mean, var = np.zeros(3), np.ones(3)
    for step, x in enumerate(batches, 1):
        if recording:
            apply(layer, x, backend)
        else:
            with no_grad():
                apply(layer, x, backend)
        axes = (0, *range(2, x.ndim))
        share = 1 / step if momentum is None else momentum
        mean = mean * (1 - share) + share * x.mean(axis=axes)
        var = var * (1 - share) + share * x.var(axis=axes, ddof=1)
    np.testing.assert_allclose(layer.running_mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(layer.running_var.numpy(), var, rtol=1e-12)
    assert layer.num_batches_tracked.dtype == np.int64
    assert int(layer.num_batches_tracked) == len(batches)
    x = rng.normal(size=batches[0].shape)
    expected = (x - per_channel(mean, x)) / np.sqrt(per_channel(var, x) + 1e-5)
    np.testing.assert_allclose(apply(layer.eval(), x, backend).numpy(), expected, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(apply(layer, x[:1], backend).numpy(), expected[:1], rtol=1e-10, atol=1e-12)


@each_batch_norm
def test_in_training_examples_meet_and_in_evaluation_they_do_not(kind, rng):
    layer = BATCH_NORMS[kind][0]().to(dtype="float64")
    x, z = some_batches(kind, rng, 2)
    z[0] = x[0]
    assert not np.allclose(apply(layer, x, "numpy").numpy()[0], apply(layer, z, "numpy").numpy()[0])
    layer.eval()
    np.testing.assert_array_equal(apply(layer, x, "numpy").numpy()[0], apply(layer, z, "numpy").numpy()[0])


@each_batch_norm
def test_without_running_averages_evaluation_uses_the_batch(kind, backend, rng):
    layer = BATCH_NORMS[kind][0](track_running_stats=False).to(backend, "float64")
    assert layer.buffers() == []
    (x,) = some_batches(kind, rng, 1)
    y = apply(layer, x, backend).numpy()
    np.testing.assert_array_equal(apply(layer.eval(), x, backend).numpy(), y)
    np.testing.assert_allclose(y.mean(axis=(0, *range(2, x.ndim))), 0, atol=1e-12)


@each_batch_norm
def test_running_averages_keep_their_precision(kind, backend, rng):
    """Whatever the precision of a batch, those of the layer decide."""
    for dtype in ("float32", "float64"):
        layer = BATCH_NORMS[kind][0](dtype=dtype).to(backend)
        before = {name: value.dtype for name, value in layer.state_dict().items()}
        assert before["weight"] == before["running_var"] == dtype
        apply(layer, some_batches(kind, rng, 1)[0], backend)
        apply(layer, some_batches(kind, rng, 1)[0].astype("float32"), backend)
        assert {name: value.dtype for name, value in layer.state_dict().items()} == before


def test_one_step_of_batch_norm_differentiates_through_the_statistics(rng):
    """Σ y is 0 whatever x is, so its gradient is 0: only if the mean is no constant."""
    layer, x = nn.BatchNorm1d(3, dtype="float64"), Tensor(rng.normal(size=(5, 3)), requires_grad=True)
    np.testing.assert_allclose(grad(layer(x).sum(), x).numpy(), 0, atol=1e-12)
    assert np.abs(grad(layer.eval()(x).sum(), x).numpy()).min() > 0.1


def test_conditional_batch_norm_has_a_weight_and_a_bias_for_every_class(backend, rng):
    layer, plain = nn.ConditionalBatchNorm(3, 4), nn.BatchNorm2d(3, affine=False)
    layer, plain = layer.to(backend, "float64"), plain.to(backend, "float64")
    weight, bias = rng.normal(size=(2, 4, 3))
    layer.weight.data, layer.bias.data = weight, bias
    x, labels = rng.normal(size=(5, 3, 2, 2)), np.array([3, 0, 0, 2, 3])
    y = layer(Tensor(x, backend=backend), labels)
    x_hat = plain(Tensor(x, backend=backend)).numpy()
    expected = weight[labels][:, :, None, None] * x_hat + bias[labels][:, :, None, None]
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)
    y.sum().backward()
    per_class = [4 * (labels == k).sum() for k in range(4)]  # pixels of that class
    np.testing.assert_allclose(layer.bias.grad.numpy(), np.repeat(per_class, 3).reshape(4, 3))


# ----------------------------------------------------------------- what only some layers have


def test_maxout_is_the_largest_of_its_pieces(backend, rng):
    layer = nn.Maxout(4, 3, 5, rng=0, dtype="float64").to(backend)
    x = rng.normal(size=(7, 4))
    weight, bias = layer.weight.numpy().reshape(3, 5, 4), layer.bias.numpy().reshape(3, 5)
    expected = (np.einsum("ni,opi->nop", x, weight) + bias).max(axis=-1)
    np.testing.assert_allclose(layer(Tensor(x, backend=backend)).numpy(), expected, rtol=1e-12)


def test_maxout_of_one_piece_is_linear(rng):
    layer, plain = nn.Maxout(4, 3, 1, rng=0), nn.Linear(4, 3, rng=1)
    plain.load_state_dict(layer.state_dict())
    x = rng.normal(size=(7, 4)).astype("float32")
    np.testing.assert_array_equal(layer(x).numpy(), plain(x).numpy())


@pytest.mark.parametrize("kind", [list, np.array, Tensor])
def test_embedding_takes_whole_numbers_of_any_kind(kind, backend):
    layer = nn.Embedding(5, 2, rng=0).to(backend)
    y = layer(kind([3, 0, 3]))
    np.testing.assert_array_equal(y.numpy(), layer.weight.numpy()[[3, 0, 3]])
    y.sum().backward()
    np.testing.assert_array_equal(layer.weight.grad.numpy()[:, 0], [1, 0, 0, 2, 0])
    assert layer(np.zeros((0, 3), int)).shape == (0, 3, 2)


@pytest.mark.parametrize(("layer", "axes"), [
    (nn.LayerNorm((3, 4, 5)), (1, 2, 3)),
    (nn.InstanceNorm(3), (2, 3)),
    (nn.GroupNorm(1, 3), (1, 2, 3)),
    (nn.GroupNorm(3, 3), (2, 3)),
    (nn.BatchNorm2d(3), (0, 2, 3)),
], ids=repr)  # fmt: skip
def test_which_values_share_a_mean_and_a_variance(layer, axes, backend, rng):
    x = Tensor(rng.normal(3.0, 2.0, (2, 3, 4, 5)), backend=backend)
    y = layer.to(backend, "float64")(x).numpy()
    np.testing.assert_allclose(y.mean(axis=axes), 0, atol=1e-12)
    np.testing.assert_allclose(y.var(axis=axes), 1, rtol=1e-4)


def test_pixel_norm_makes_every_pixel_a_vector_of_one_length(backend, rng):
    y = nn.PixelNorm()(Tensor(rng.normal(size=(2, 7, 3, 3)), backend=backend)).numpy()
    np.testing.assert_allclose(np.sqrt((y * y).sum(axis=1)), np.sqrt(7), rtol=1e-6)
    assert np.all(nn.PixelNorm()(Tensor(np.zeros((2, 7)), backend=backend)).numpy() == 0)


def test_dropout(backend, rng):
    """Each mask is new, a seed says which; in evaluation x passes through, history and all."""
    x = Tensor(np.ones((100, 100)), requires_grad=True, backend=backend)
    layer, twin = nn.Dropout(0.25, rng=3), nn.Dropout(0.25, rng=np.random.default_rng(3))
    first, second = layer(x).numpy(), layer(x).numpy()
    assert np.unique(first).tolist() == [0, 1 / 0.75]
    assert abs((first == 0).mean() - 0.25) < 5 * np.sqrt(0.25 * 0.75 / first.size)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(twin(x).numpy(), first)
    state = layer.eval().rng.bit_generator.state
    y = layer(x)
    np.testing.assert_array_equal(y.numpy(), x.numpy())
    assert layer.rng.bit_generator.state == state
    np.testing.assert_array_equal(grad(y.sum(), x).numpy(), 1)


def test_flatten_of_an_empty_batch():
    assert nn.Flatten()(np.zeros((0, 3, 2))).shape == (0, 6)
