"""The layers that only GANs have: spectral_norm, equalized, self-attention, minibatch layers; and summary.

Values are compared with loops in plain NumPy, written down here as in the papers; gradients with finite
differences. The comparison with PyTorch is in test_nets_torch.py.
"""

import copy
import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import minigan as mg
from minigan import Tensor, grad, nn, no_grad
from minigan.gradcheck import gradcheck
from minigan.tape import observing


def on(backend, module, dtype="float64"):
    return module.to(backend=backend, dtype=dtype)


def values(seed, *shape):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def tensor(seed, *shape, backend="numpy", dtype="float64", grads=False):
    return Tensor(values(seed, *shape), requires_grad=grads, dtype=dtype, backend=backend)


def state(module):
    return {name: value.tobytes() for name, value in module.state_dict().items()}


def check_gradients(module, x, order=2):
    """gradcheck of the module as a function of x and of all its parameters."""
    places = [
        (owner, name, value)
        for owner in module.modules()
        for name, value in vars(owner).items()
        if isinstance(value, Tensor) and value.leaf is not None
    ]

    def function(x, *parameters):
        for (owner, name, _), parameter in zip(places, parameters, strict=True):
            setattr(owner, name, parameter)
        return module(x)

    try:
        gradcheck(function, x, *(value.detach() for _, _, value in places), order=order)
    finally:
        for owner, name, value in places:
            setattr(owner, name, value)


def with_gamma(layer, gamma=0.7):
    layer.gamma.data = np.array(gamma)
    return layer


LAYERS = {  # a layer, and the shape of an input
    "spectral Linear": (lambda: nn.spectral_norm(nn.Linear(5, 3, rng=0), rng=1), (2, 5)),
    "spectral Conv2d": (
        lambda: nn.spectral_norm(nn.Conv2d(4, 6, 3, 2, 1, groups=2, rng=0), rng=1),
        (2, 4, 5, 5),
    ),
    "spectral ConvTranspose2d": (
        lambda: nn.spectral_norm(nn.ConvTranspose2d(3, 2, 4, 2, 1, rng=0), rng=1),
        (2, 3, 3, 2),
    ),
    "spectral ConvTranspose1d": (
        lambda: nn.spectral_norm(nn.ConvTranspose1d(2, 3, 3, 2, rng=0), rng=1),
        (1, 2, 3),
    ),
    "equalized Linear": (lambda: nn.equalized(nn.Linear(5, 3, rng=0), rng=1), (1, 5)),
    "equalized Conv2d": (lambda: nn.equalized(nn.Conv2d(2, 3, 3, rng=0), rng=1, gain=1), (2, 2, 4, 3)),
    "SelfAttention": (lambda: with_gamma(nn.SelfAttention(8, rng=0)), (2, 8, 5, 4)),
    "SelfAttention, few channels": (lambda: with_gamma(nn.SelfAttention(3, rng=0)), (1, 3, 3, 3)),
    "SelfAttention, no pooling": (lambda: with_gamma(nn.SelfAttention(16, False, rng=0)), (1, 16, 3, 1)),
    "MinibatchStdDev": (lambda: nn.MinibatchStdDev(2), (4, 3, 2, 3)),
    "MinibatchStdDev, two channels": (lambda: nn.MinibatchStdDev(4, 2), (6, 4, 1, 2)),
    "MinibatchStdDev of features": (lambda: nn.MinibatchStdDev(), (4, 5)),
    "MinibatchStdDev of one": (lambda: nn.MinibatchStdDev(), (1, 2, 3, 3)),
    "MinibatchDiscrimination": (lambda: nn.MinibatchDiscrimination(5, 3, 2, rng=0), (4, 5)),
    "MinibatchDiscrimination of one": (lambda: nn.MinibatchDiscrimination(3, 2, 2, rng=0), (1, 3)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


# ---------------------------------------------------------------------------- all of them


@every_layer
def test_gradients_to_second_order(backend, name):
    make, shape = LAYERS[name]
    layer, x = on(backend, make()), tensor(3, *shape, backend=backend)
    check_gradients(layer.eval(), x)
    if "spectral" not in name:  # there, each forward in training moves u and v: see below
        check_gradients(layer.train(), x)


@every_layer
def test_precision_and_backend_are_kept(backend, name):
    make, shape = LAYERS[name]
    for dtype in ("float32", "float64"):
        layer = on(backend, make(), dtype)
        x = tensor(3, *shape, backend=backend, dtype=dtype, grads=True)
        y = layer(x)
        assert (y.dtype, y.backend) == (dtype, backend)
        gradients = grad(y.sum(), [x, *layer.parameters()])
        assert all((g.dtype, g.backend) == (dtype, backend) for g in gradients)


@every_layer
def test_state_round_trip_and_copy(backend, name):
    make, shape = LAYERS[name]
    layer, x = on(backend, make()), tensor(3, *shape, backend=backend)
    layer(x)  # u and v have moved, and the weight in use has a history
    other = on(backend, make())
    for parameter in other.parameters():
        parameter.data = parameter.data + 1
    other.load_state_dict(layer.state_dict())
    twins = [other, copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))]
    assert all(state(twin) == state(layer) for twin in twins)
    for _ in range(2):
        expected = layer(x).numpy()
        for twin in twins:
            # A copy may lie in memory in another order, and on a GPU its products may then round differently.
            np.testing.assert_allclose(twin(x).numpy(), expected, rtol=0 if backend == "numpy" else 1e-12)
            if backend == "numpy":
                assert state(twin) == state(layer)
            assert not set(twin.parameters()) & set(layer.parameters())


@every_layer
def test_same_seed_same_layer(name):
    make, _ = LAYERS[name]
    assert state(make()) == state(make())
    assert repr(make()) == repr(make())


@every_layer
def test_eval_mode_changes_nothing(name):
    make, shape = LAYERS[name]
    layer, x = make().eval(), tensor(3, *shape, dtype="float32")
    before, first = state(layer), layer(x).numpy()
    np.testing.assert_array_equal(layer(x).numpy(), first)
    assert state(layer) == before


# -------------------------------------------------------------------------- spectral_norm

NORMALISED = {  # a layer with a weight, the axis of its outputs, and the shape of an input
    "Linear": (lambda rng: nn.Linear(20, 12, rng=rng), 0, (2, 20)),
    "Conv2d": (lambda rng: nn.Conv2d(3, 8, 4, 2, 1, rng=rng), 0, (1, 3, 8, 8)),
    "grouped Conv2d": (lambda rng: nn.Conv2d(4, 8, 3, groups=2, rng=rng), 0, (1, 4, 3, 3)),
    "Conv1d": (lambda rng: nn.Conv1d(3, 7, 5, rng=rng), 0, (1, 3, 5)),
    "ConvTranspose2d": (lambda rng: nn.ConvTranspose2d(8, 3, 4, rng=rng), 1, (1, 8, 1, 1)),
    "ConvTranspose1d": (lambda rng: nn.ConvTranspose1d(6, 5, 3, rng=rng), 1, (1, 6, 2)),
    "Embedding": (lambda rng: nn.Embedding(9, 6, rng=rng), 0, np.array([1, 0])),
}
every_kind = pytest.mark.parametrize("kind", NORMALISED)


def matrix(weight, axis):
    weight = np.moveaxis(weight.numpy() if isinstance(weight, Tensor) else weight, axis, 0)
    return weight.reshape(len(weight), -1)


def normalised(kind, seed=0, backend="numpy"):
    """(layer, axis, x, its weight before) of NORMALISED, the layer with spectral_norm."""
    make, axis, x = NORMALISED[kind]
    layer = on(backend, make(seed))
    weight = layer.weight
    x = Tensor(x if isinstance(x, np.ndarray) else values(seed, *x), backend=backend)
    return nn.spectral_norm(layer, rng=seed + 1), axis, x, weight


@every_kind
def test_T15_the_largest_singular_value_becomes_one(backend, kind):
    layer, axis, x, weight = normalised(kind, backend=backend)
    assert layer.weight_orig is weight, "the parameter stays the same Tensor"
    for _ in range(150):
        layer(x)
    singular = np.linalg.svd(matrix(layer.weight, axis), compute_uv=False)
    assert abs(singular[0] - 1) < 1e-3
    u, v = layer.weight_u.numpy(), layer.weight_v.numpy()
    sigma = u @ matrix(layer.weight_orig, axis) @ v
    largest = np.linalg.svd(matrix(weight, axis), compute_uv=False)[0]
    np.testing.assert_allclose(sigma, largest, rtol=1e-3)
    np.testing.assert_allclose(layer.weight.numpy(), weight.numpy() / sigma, rtol=1e-12)


def test_T15_follows_a_weight_that_is_trained(rng):
    layer = nn.spectral_norm(nn.Linear(16, 16, rng=rng), rng=rng)
    x = tensor(0, 4, 16)
    for _ in range(200):
        weight = layer.weight_orig
        weight.data = weight.data + 0.01 * rng.standard_normal(weight.shape)
        layer(x)
        sigma = np.linalg.svd(layer.weight.numpy(), compute_uv=False)[0]
        assert 1 - 1e-6 < sigma < 1.05  # uᵀ W v is never above the largest singular value
    layer.eval()
    np.testing.assert_array_equal(layer(x).numpy(), layer(x).numpy())


@every_kind
def test_T15_one_power_iteration_in_each_forward_of_training(backend, kind):
    layer, axis, x, weight = normalised(kind, backend=backend)
    w = matrix(weight, axis)

    def expect(rounds, when):
        u = before
        for _ in range(rounds):
            v = w.T @ u / np.linalg.norm(w.T @ u)
            u = w @ v / np.linalg.norm(w @ v)
            np.testing.assert_allclose(layer.weight_v.numpy(), v, atol=1e-12, err_msg=when)
        np.testing.assert_allclose(layer.weight_u.numpy(), u, atol=1e-12, err_msg=when)

    before = layer.weight_u.numpy()
    layer(x)
    expect(1, "in training")
    before = layer.weight_u.numpy()
    with no_grad():
        layer(x)
    expect(1, "in training, under no_grad")
    before = layer.weight_u.numpy()
    with nn.frozen(layer):
        layer(x)
    expect(1, "in training, frozen")
    before = layer.weight_u.numpy()
    layer.eval()(x)
    expect(0, "in eval mode")


def test_T15_u_and_v_are_saved_but_not_trained():
    layer, _, x, _ = normalised("Linear")
    assert [name for name, _ in layer.named_parameters()] == ["bias", "weight_orig"]
    assert [name for name, _ in layer.named_buffers()] == ["weight_u", "weight_v"]
    assert set(layer.state_dict()) == {"bias", "weight_orig", "weight_u", "weight_v"}
    (layer(x) ** 2).sum().backward()
    assert layer.weight_u.node is None
    assert layer.weight_v.node is None
    assert layer.weight_orig.grad is not None


@every_kind
def test_gradient_in_training_is_that_of_w_over_sigma(backend, kind):
    """With u and v at the singular vectors, σ = uᵀ W v is as good as the true σ to first order."""
    layer, axis, x, _ = normalised(kind, backend=backend)
    for _ in range(2000):
        layer(x)
    u, v, weight = layer.weight_u, layer.weight_v, layer.weight_orig

    def with_u_reset(w):
        layer.weight_u, layer.weight_v, layer.weight_orig = u, v, w
        return layer(x)

    gradcheck(with_u_reset, weight.detach(), order=1, rtol=1e-6)

    def with_true_norm(w):
        layer.weight_u, layer.weight_v, layer.weight_orig = u, v, Tensor(w, backend=backend)
        layer.eval()(x)
        layer.train()
        return w / np.linalg.svd(matrix(w, axis), compute_uv=False)[0]

    w, g, h = weight.numpy(), values(7, *weight.shape), 1e-5
    direction = values(8, *weight.shape)
    slope = ((with_true_norm(w + h * direction) - with_true_norm(w - h * direction)) * g).sum() / (2 * h)
    layer.weight_orig = leaf = Tensor(w, requires_grad=True, backend=backend)
    layer(x)
    claimed = grad(layer.weight, leaf, Tensor(g, backend=backend)).numpy()
    np.testing.assert_allclose((claimed * direction).sum(), slope, rtol=1e-5)


def test_gradient_by_the_formula_away_from_the_singular_vectors(backend):
    """W̄_orig = (W̄ - Σ(W̄ · weight) u vᵀ) / σ with the u and v of that forward, in training too."""
    layer, _, x, weight = normalised("Linear", backend=backend)
    layer.weight_u = Tensor(np.eye(12)[0], backend=backend)
    layer(x)
    first = layer.weight
    u, v = layer.weight_u.numpy(), layer.weight_v.numpy()
    layer(x)  # another forward moves u and v on; that must not reach into the first one's gradient
    g = values(5, *weight.shape)
    sigma = u @ weight.numpy() @ v
    expected = (g - (g * weight.numpy() / sigma).sum() * np.outer(u, v)) / sigma
    got = grad(first, weight, Tensor(g, backend=backend)).numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-13)


def test_gradient_penalty_through_spectral_norm():
    """Second derivatives as WGAN-GP takes them: of ‖∂D/∂x‖ with regard to the weights."""
    d = nn.Sequential(
        nn.spectral_norm(nn.Linear(4, 6, rng=0), rng=1),
        nn.Tanh(),
        nn.spectral_norm(nn.Linear(6, 1, rng=2), rng=3),
    )
    d = on("numpy", d).eval()
    first, second = d[0], d[2]

    def penalty(x, w1, w2):
        first.weight_orig, second.weight_orig = w1, w2
        if x.node is None:
            x = Tensor(x, requires_grad=True)
        slope = grad(d(x).sum(), x, create_graph=True)
        return (mg.norm(slope, axis=1) - 1) ** 2

    gradcheck(penalty, values(0, 3, 4), values(1, 6, 4), values(2, 1, 6), order=1)


def test_frozen_means_constant():
    layer, _, x, _ = normalised("Conv2d")
    with nn.frozen(layer):
        assert not layer(x).requires_grad
        assert layer.weight.node is None
    y = layer(x)
    assert y.requires_grad
    assert all(g is not None for g in grad(y.sum(), layer.parameters()))


def test_computed_weight_is_neither_parameter_nor_buffer():
    for layer in (normalised("Linear")[0], nn.equalized(nn.Linear(20, 12, rng=0), rng=0)):
        with no_grad():
            layer(tensor(0, 2, 20))  # under no_grad the weight has no history, and looks like a buffer
        assert "weight" not in layer.state_dict()
        assert not any(layer.weight is tensor for tensor in (*layer.parameters(), *layer.buffers()))


def test_weight_is_there_before_the_first_forward():
    layer, axis, _, weight = normalised("Conv2d")
    sigma = np.linalg.svd(matrix(weight, axis), compute_uv=False)[0]
    np.testing.assert_allclose(layer.weight.numpy(), weight.numpy() / sigma, rtol=0.05)


def test_both_on_one_layer(backend):
    layer = nn.equalized(nn.Linear(20, 12, rng=0), rng=1, gain=3.0)
    layer = on(backend, nn.spectral_norm(layer, name="weight_orig", rng=2))
    layer.weight_orig_orig.data = values(4, 12, 20)
    for _ in range(100):
        y = layer(tensor(0, 2, 20, backend=backend))
    weight = layer.weight_orig_orig.numpy()
    weight = weight / np.linalg.svd(weight, compute_uv=False)[0] * 3 / np.sqrt(20)
    np.testing.assert_allclose(y.numpy(), values(0, 2, 20) @ weight.T, rtol=1e-3, atol=1e-3)
    assert set(layer.state_dict()) == {"bias", "weight_orig_orig", "weight_orig_u", "weight_orig_v"}


@pytest.mark.parametrize("wrap", [nn.spectral_norm, nn.equalized])
def test_what_cannot_be_wrapped(wrap):
    layer = wrap(nn.Linear(3, 2, rng=0), rng=0)
    with pytest.raises(ValueError, match=r"weight of Linear\(3, 2\) .*is computed from weight_orig already"):
        wrap(layer, rng=0)
    with pytest.raises(ValueError, match=r"ReLU\(\) has no parameter called 'weight'.*it has: none"):
        wrap(nn.ReLU(), rng=0)
    with pytest.raises(ValueError, match=r"has no parameter called 'weight'.*0\.weight, 0\.bias"):
        wrap(nn.Sequential(nn.Linear(1, 1, rng=0)), rng=0)
    with pytest.raises(ValueError, match=r"weight of BatchNorm2d.* has shape \(3,\); it needs two axes"):
        wrap(nn.BatchNorm2d(3), rng=0)
    with pytest.raises(TypeError, match="is not a Module"):
        wrap(mg.tanh, rng=0)
    with pytest.raises(TypeError, match="rng=None; give a generator"):
        wrap(nn.Linear(3, 2, rng=0), rng=None)


def test_a_refused_layer_is_left_alone():
    layer = nn.Linear(3, 2, rng=0)
    before, names = state(layer), list(vars(layer))
    for rng, zero in ((None, False), (0, True)):
        if zero:
            layer.weight.data = np.zeros((2, 3))
            before = state(layer)
        with pytest.raises((TypeError, ValueError)):
            nn.spectral_norm(layer, rng=rng)
        assert (state(layer), list(vars(layer))) == (before, names)


def test_spectral_norm_of_zeros():
    layer = nn.Linear(3, 2, rng=0)
    layer.weight.data = np.zeros((2, 3))
    with pytest.raises(ValueError, match=r"weight of .* is all zeros; give it values before"):
        nn.spectral_norm(layer, rng=0)


def test_mode_survives_wrapping():
    assert nn.spectral_norm(nn.Linear(3, 2, rng=0).eval(), rng=0).training is False
    assert nn.spectral_norm(nn.Linear(3, 2, rng=0), rng=0).training is True


# ------------------------------------------------------------------------------ equalized


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda: nn.Linear(300, 200, rng=0), 300),
        (lambda: nn.Conv2d(32, 64, 3, rng=0), 32 * 9),
        (lambda: nn.Conv2d(32, 64, (3, 5), groups=4, rng=0), 8 * 15),
        (lambda: nn.ConvTranspose2d(32, 64, 3, rng=0), 32 * 9),
        (lambda: nn.ConvTranspose2d(32, 64, 3, groups=4, rng=0), 8 * 9),
        (lambda: nn.ConvTranspose1d(40, 100, 3, rng=0), 40 * 3),
    ],
)
def test_equalized_scale(backend, make, fan_in):
    layer = on(backend, nn.equalized(make(), rng=1))
    weight = layer.weight_orig.numpy()
    assert abs(weight.std() - 1) < 0.03
    assert abs(weight.mean()) < 0.03
    assert not layer.bias.numpy().any()
    channels = layer.in_features if layer.weight.ndim == 2 else layer.in_channels
    layer(tensor(0, 1, channels, *[7] * (layer.weight.ndim - 2), backend=backend))
    np.testing.assert_allclose(layer.weight.numpy(), weight * np.sqrt(2 / fan_in), rtol=1e-12)


def test_equalized_keeps_the_size_of_signals():
    layers = [nn.equalized(nn.Linear(500, 500, rng=0), rng=i) for i in range(5)]
    x = tensor(0, 50, 500, dtype="float32")
    for layer in layers:
        x = mg.relu(layer(x))
    assert 0.7 < float((x * x).mean()) < 1.4  # a ReLU halves the mean square, and gain √2 makes up for it


def test_equalized_without_bias_and_with_gain():
    layer = nn.equalized(nn.Linear(4, 3, bias=False, rng=0), rng=0, gain=1)
    assert layer.bias is None
    np.testing.assert_allclose(layer.weight.numpy(), layer.weight_orig.numpy() / 2)


# -------------------------------------------------------------------------- SelfAttention


def attention_by_loops(layer, x):
    """SAGAN's equations, one place and one channel at a time."""
    query, key, value, out = (
        conv.weight.numpy()[:, :, 0, 0] for conv in (layer.query, layer.key, layer.value, layer.out)
    )
    y = np.empty_like(x)
    for n, image in enumerate(x):
        height, width = image.shape[1:]
        if layer.pool:
            looked_at = [(i, j) for i in range(height // 2) for j in range(width // 2)]

            def pooled(conv, i, j, image=image):
                block = [image[:, 2 * i + a, 2 * j + b] for a in (0, 1) for b in (0, 1)]
                return np.max([conv @ pixel for pixel in block], axis=0)
        else:
            looked_at = list(np.ndindex(height, width))

            def pooled(conv, i, j, image=image):
                return conv @ image[:, i, j]

        for i in np.ndindex(height, width):
            pixel = image[(slice(None), *i)]
            score = [np.dot(query @ pixel, pooled(key, *j)) for j in looked_at]
            beta = np.exp(score) / np.exp(score).sum()
            o = sum(share * pooled(value, *j) for share, j in zip(beta, looked_at, strict=True))
            y[(n, slice(None), *i)] = float(layer.gamma) * (out @ o) + pixel
    return y


def test_self_attention_by_loops(backend):
    @given(
        n=st.integers(1, 2), channels=st.integers(1, 17), height=st.integers(2, 5), width=st.integers(2, 5),
        pool=st.booleans(), seed=st.integers(0, 99),
    )  # fmt: skip
    def check(n, channels, height, width, pool, seed):
        layer = on(backend, with_gamma(nn.SelfAttention(channels, pool, rng=seed), 0.6))
        x = 2 * values(seed, n, channels, height, width)
        y = layer(Tensor(x, backend=backend)).numpy()
        np.testing.assert_allclose(y, attention_by_loops(layer, x), rtol=1e-10, atol=1e-10)

    check()


@pytest.mark.parametrize(
    ("channels", "eighth", "half"), [(64, 8, 32), (17, 2, 8), (8, 1, 4), (3, 1, 1), (1, 1, 1)]
)
def test_self_attention_channels(channels, eighth, half):
    shapes = {name: value.shape for name, value in nn.SelfAttention(channels, rng=0).state_dict().items()}
    assert shapes == {
        "query.weight": (eighth, channels, 1, 1), "key.weight": (eighth, channels, 1, 1),
        "value.weight": (half, channels, 1, 1), "out.weight": (channels, half, 1, 1), "gamma": (),
    }  # fmt: skip


def test_self_attention_begins_as_identity(backend):
    layer = on(backend, nn.SelfAttention(16, rng=0))
    x = tensor(0, 2, 16, 7, 7, backend=backend)
    y = layer(x)
    np.testing.assert_array_equal(y.numpy(), x.numpy())
    gradients = dict(
        zip([name for name, _ in layer.named_parameters()], grad(y.sum(), layer.parameters()), strict=True)
    )
    assert set(gradients) == {"query.weight", "key.weight", "value.weight", "out.weight", "gamma"}
    assert {name for name, g in gradients.items() if g.numpy().any()} == {"gamma"}


def test_self_attention_does_not_care_where_a_place_is():
    """Without pooling, moving the pixels about moves the output in the same way."""
    layer = on("numpy", with_gamma(nn.SelfAttention(8, pool=False, rng=0)))
    x = values(0, 1, 8, 1, 6)
    order = np.random.default_rng(0).permutation(6)
    np.testing.assert_allclose(layer(x[..., order]).numpy(), layer(x).numpy()[..., order], rtol=1e-12)


def test_self_attention_sees_far():
    layer = on("numpy", with_gamma(nn.SelfAttention(8, rng=0)))
    x = tensor(0, 1, 8, 6, 6, grads=True)
    g = grad(layer(x)[0, :, 0, 0].sum(), x).numpy()
    seen = np.abs(g).sum(axis=(0, 1)).reshape(3, 2, 3, 2).sum(axis=(1, 3))  # one pixel of four is looked at
    assert (seen > 1e-6).all()


def test_self_attention_in_a_spectrally_normalised_net(backend):
    layer = with_gamma(nn.SelfAttention(8, rng=0))
    for conv in layer.children():
        nn.spectral_norm(conv, rng=1)
    layer, x = on(backend, layer).eval(), tensor(0, 2, 8, 4, 4, backend=backend)
    check_gradients(layer, x, order=1)
    expected = attention_by_loops(layer, x.numpy())
    np.testing.assert_allclose(layer(x).numpy(), expected, rtol=1e-10, atol=1e-12)


def test_self_attention_errors():
    layer = nn.SelfAttention(8, rng=0)
    for shape in [(2, 8), (2, 4, 6, 6)]:
        with pytest.raises(ValueError, match=r"SelfAttention: input of shape .* works on \(N, 8, H, W\)"):
            layer(np.zeros(shape))
    with pytest.raises(ValueError, match=r"size \(1, 4\) are too small; with pool=True .* 2 or more"):
        layer(np.zeros((2, 8, 1, 4)))
    assert nn.SelfAttention(8, pool=False, rng=0)(np.zeros((2, 8, 1, 4))).shape == (2, 8, 1, 4)
    with pytest.raises(ValueError, match="SelfAttention: channels must be 1 or more, not 0"):
        nn.SelfAttention(0, rng=0)


# ------------------------------------------------------------------- minibatch statistics


def std_dev_by_loops(x, group_size, channels):
    n, c = x.shape[:2]
    size = min(group_size, n)
    while n % size:
        size -= 1
    groups, width = n // size, c // channels
    y = np.empty((n, c + channels, *x.shape[2:]))
    for i in range(n):
        y[i, :c] = x[i]
        group = x[i % groups :: groups]
        assert len(group) == size
        for part in range(channels):
            rows = group[:, part * width : (part + 1) * width].reshape(size, -1)
            sigma = [np.sqrt(np.mean((column - column.mean()) ** 2) + 1e-8) for column in rows.T]
            y[i, c + part] = np.mean(sigma)
    return y


def test_minibatch_std_dev_by_loops(backend):
    @given(
        n=st.integers(1, 9), width=st.integers(1, 3), places=st.lists(st.integers(1, 3), max_size=2),
        group_size=st.integers(1, 6), channels=st.integers(1, 3), seed=st.integers(0, 99),
    )  # fmt: skip
    def check(n, width, places, group_size, channels, seed):
        x = values(seed, n, width * channels, *places)
        y = nn.MinibatchStdDev(group_size, channels)(Tensor(x, backend=backend))
        assert y.backend == backend
        np.testing.assert_allclose(y.numpy(), std_dev_by_loops(x, group_size, channels), rtol=1e-12)

    check()


def test_minibatch_std_dev_tells_collapse_from_variety(backend):
    one = values(0, 1, 3, 4, 4)
    x = Tensor(np.concatenate([np.repeat(one, 4, axis=0)]), requires_grad=True, backend=backend)
    y = nn.MinibatchStdDev()(x)
    np.testing.assert_allclose(y.numpy()[:, 3], 1e-4)
    assert np.isfinite(grad(y.sum(), x).numpy()).all()
    assert nn.MinibatchStdDev()(tensor(0, 4, 3, 4, 4, backend=backend)).numpy()[:, 3].min() > 0.5


def test_minibatch_std_dev_of_an_empty_batch():
    assert nn.MinibatchStdDev()(np.zeros((0, 3, 2, 2))).shape == (0, 4, 2, 2)


def test_minibatch_std_dev_errors():
    for shape, channels in [((4,), 1), ((4, 3), 2), ((4, 0, 2, 2), 1)]:
        with pytest.raises(ValueError, match=rf"MinibatchStdDev: input of shape .* channels={channels} must"):
            nn.MinibatchStdDev(channels=channels)(np.zeros(shape))
    with pytest.raises(ValueError, match="MinibatchStdDev: group_size must be 1 or more, not 0"):
        nn.MinibatchStdDev(0)
    with pytest.raises(TypeError, match="MinibatchStdDev: channels must be a whole number"):
        nn.MinibatchStdDev(4, 1.5)


def discrimination_by_loops(x, weight, out, dims):
    m = np.einsum("na,bka->nbk", x, weight.reshape(out, dims, x.shape[1]))
    o = np.zeros((len(x), out))
    for i, j, b in np.ndindex(len(x), len(x), out):
        o[i, b] += np.exp(-sum(abs(m[i, b, k] - m[j, b, k]) for k in range(dims)))
    return np.concatenate([x, o], axis=1)


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1.0, 1e15])
def test_spectral_norm_of_weights_of_any_size(scale):
    """W / σ does not depend on the size of W, down to where float32 has no smaller squares."""
    layer = nn.Linear(5, 4, rng=0)
    value = layer.weight.numpy() * scale
    layer.weight.data = value
    nn.spectral_norm(layer, rng=1)
    for _ in range(30):
        layer(np.zeros((1, 5), "float32"))
    sigma = np.linalg.svd(layer.weight.numpy().astype(float), compute_uv=False)[0]
    assert abs(sigma - 1) < 1e-3


def test_equalized_is_for_weighted_sums():
    for layer in (nn.ConditionalBatchNorm(3, 2), nn.Embedding(3, 2, rng=0), nn.LayerNorm((3, 4))):
        with pytest.raises(ValueError, match=r"^equalized: .* its outputs are not sums weighted by it"):
            nn.equalized(layer, rng=0)


def test_repr_says_how_the_weight_is_made():
    assert repr(nn.spectral_norm(nn.Linear(3, 2, rng=0), rng=0)) == "Linear(3, 2) with spectral_norm"
    assert repr(nn.equalized(nn.Linear(3, 2, rng=0), rng=0)) == "Linear(3, 2) with equalized"


def test_minibatch_discrimination_by_loops(backend):
    @given(n=st.integers(0, 6), sizes=st.tuples(*[st.integers(1, 4)] * 3), seed=st.integers(0, 99))
    def check(n, sizes, seed):
        layer = on(backend, nn.MinibatchDiscrimination(*sizes, rng=seed))
        x = values(seed, n, sizes[0])
        y = layer(Tensor(x, backend=backend))
        assert y.shape == (n, sizes[0] + sizes[1])
        expected = discrimination_by_loops(x, layer.weight.numpy(), *sizes[1:])
        np.testing.assert_allclose(y.numpy(), expected, rtol=1e-12)

    check()


def test_minibatch_discrimination_counts_a_sample_itself(backend):
    layer = on(backend, nn.MinibatchDiscrimination(3, 2, 4, rng=0))
    np.testing.assert_array_equal(layer(tensor(0, 1, 3, backend=backend)).numpy()[:, 3:], 1.0)
    same = Tensor(np.ones((5, 3)), requires_grad=True, backend=backend)
    y = layer(same)
    np.testing.assert_array_equal(y.numpy()[:, 3:], 5.0)
    np.testing.assert_array_equal(grad(y[:, 3:].sum(), same).numpy(), 0.0)  # at the tip


def test_minibatch_discrimination_errors():
    layer = nn.MinibatchDiscrimination(3, 2, 4, rng=0)
    for shape in [(3,), (2, 4), (2, 3, 1, 1)]:
        with pytest.raises(ValueError, match=r"MinibatchDiscrimination: input of shape .* works on \(N, 3\)"):
            layer(np.zeros(shape))
    with pytest.raises(ValueError, match="kernel_dims must be 1 or more"):
        nn.MinibatchDiscrimination(3, 2, 0, rng=0)


# -------------------------------------------------------------------------------- summary


def dcgan():
    """A small generator (from 10 numbers to 1×14×14) and discriminator."""
    g = nn.Sequential(
        nn.Linear(10, 8 * 7 * 7, rng=0), nn.Reshape(8, 7, 7), nn.BatchNorm2d(8), nn.ReLU(),
        nn.ConvTranspose2d(8, 1, 4, 2, 1, rng=0), nn.Tanh(),
    )  # fmt: skip
    d = nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1, rng=0), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(4 * 7 * 7, 1, rng=0)
    )
    return g, d


TABLE = """\
layer                  output shape    parameters  multiply-adds
----------------------------------------------------------------
Sequential             (2, 1, 14, 14)
  (0) Linear           (2, 392)             4,312          7,840
  (1) Reshape          (2, 8, 7, 7)
  (2) BatchNorm2d      (2, 8, 7, 7)            16
  (3) ReLU             (2, 8, 7, 7)
  (4) ConvTranspose2d  (2, 1, 14, 14)         129         12,544
  (5) Tanh             (2, 1, 14, 14)
----------------------------------------------------------------
total                                       4,457         20,384
"""


def test_summary_of_a_generator(backend, capsys):
    g, _ = dcgan()
    rows = nn.summary(on(backend, g), (2, 10)).rows
    assert capsys.readouterr().out == TABLE
    assert [(row.name, row.kind, row.calls) for row in rows[:2]] == [
        ("", "Sequential", 1),
        ("0", "Linear", 1),
    ]
    # by hand: 2 samples · 10 · 392; and each of 2 · 8 · 7 · 7 entries paints a 4 × 4 kernel of one channel
    assert (rows[1].shape, rows[1].parameters, rows[1].multiply_adds) == ((2, 392), 3920 + 392, 2 * 10 * 392)
    assert rows[5].multiply_adds == 2 * 8 * 7 * 7 * 4 * 4


def test_summary_of_a_discriminator():
    _, d = dcgan()
    s = nn.summary(d, (3, 1, 14, 14), show=False)
    assert [row.shape for row in s.rows] == [(3, 1), (3, 4, 7, 7), (3, 4, 7, 7), (3, 196), (3, 1)]
    assert [row.parameters for row in s.rows] == [0, 4 * 16 + 4, 0, 0, 196 + 1]
    assert [row.multiply_adds for row in s.rows] == [0, 3 * 4 * 49 * 16, 0, 0, 3 * 196]
    assert s.parameters == sum(parameter.size for parameter in d.parameters())
    assert repr(s) == "Summary(5 modules, 265 parameters, 9,996 multiply-adds)"


def test_summary_goes_to_a_file_or_nowhere(capsys):
    g, _ = dcgan()
    file = io.StringIO()
    nn.summary(g, (2, 10), file=file)
    assert file.getvalue() == TABLE
    assert str(nn.summary(g, (2, 10), show=False)) + "\n" == TABLE
    assert capsys.readouterr().out == ""


def test_summary_leaves_the_module_as_it_was():
    head = nn.spectral_norm(nn.Linear(196, 3, rng=0), rng=0)
    net = nn.Sequential(*dcgan()[0], nn.Flatten(), head, nn.Dropout(0.5, rng=0))
    net(np.ones((2, 10), "float32"))
    net[2].eval()  # a mixture of modes
    net[4].eval()
    attributes = {module: dict(vars(module)) for module in net.modules()}
    numbers = state(net)

    def check():
        for module, before in attributes.items():
            assert list(vars(module)) == list(before)
            assert all(vars(module)[name] is value for name, value in before.items())
        assert state(net) == numbers
        assert observing.get() is None

    nn.summary(net, (2, 10), show=False)
    check()
    with pytest.raises(ValueError, match="linear: input of shape"):
        nn.summary(net, (2, 11), show=False)
    check()
    with pytest.raises(TypeError):
        nn.summary(net, (2, 10), (2, 10), show=False)
    check()


def test_summary_runs_in_eval_mode_without_recording():
    seen = []

    class Spy(nn.Module):
        def forward(self, x):
            seen.append((self.training, self.layer(x).requires_grad))
            return x

    spy = Spy()
    spy.layer = nn.Linear(2, 2, rng=0)
    nn.summary(spy, (1, 2), show=False)
    assert seen == [(False, False)]


def test_summary_of_computed_weights():
    d = nn.Sequential(
        nn.spectral_norm(nn.Linear(6, 4, rng=0), rng=0), nn.equalized(nn.Linear(4, 1, rng=0), rng=0)
    )
    d(np.zeros((2, 6), "float32"))
    weight, u = d[0].weight, d[0].weight_u
    rows = nn.summary(d, (5, 6), show=False).rows
    # W v, for σ, is a product too: 6 · 4 of them, whatever the batch
    assert [row.multiply_adds for row in rows] == [0, 5 * 6 * 4 + 6 * 4, 5 * 4]
    assert [row.parameters for row in rows] == [0, 6 * 4 + 4, 4 + 1]
    assert d[0].weight is weight
    assert d[0].weight_u is u


def test_summary_of_nested_and_shared_modules():
    shared = nn.Linear(4, 4, rng=0)
    body = nn.Sequential(shared, nn.ReLU(), shared)
    net = nn.Sequential(nn.Residual(body), shared, nn.Lambda(lambda x: (x, x[:, :1])))
    s = nn.summary(net, (2, 4), show=False)
    assert [(row.name, row.kind, row.calls) for row in s.rows] == [
        ("", "Sequential", 1), ("0", "Residual", 1), ("0.body", "Sequential", 1), ("0.body.0", "Linear", 3),
        ("0.body.1", "ReLU", 1), ("2", "Lambda", 1),
    ]  # fmt: skip
    assert s.rows[3].multiply_adds == 3 * 2 * 4 * 4
    assert s.parameters == s.rows[3].parameters == 20
    assert s.rows[5].shape == [(2, 4), (2, 1)]
    lines = str(s).splitlines()
    assert lines[4].startswith("    (body) Sequential  ")
    assert lines[5].startswith("      (0) Linear x 3  ")
    assert lines[7].startswith("  (2) Lambda  ")
    assert "(2, 4), (2, 1)" in lines[7]


def test_summary_counts_a_shared_parameter_once():
    first, second = nn.Linear(3, 3, bias=False, rng=0), nn.Linear(3, 3, bias=False, rng=0)
    second.weight = first.weight
    s = nn.summary(nn.Sequential(first, second), (1, 3), show=False)
    assert [row.parameters for row in s.rows] == [0, 9, 0]
    assert [row.multiply_adds for row in s.rows] == [0, 9, 9]


def test_summary_of_what_does_not_run():
    class Two(nn.Module):
        def __init__(self):
            self.used, self.idle = nn.Linear(2, 1, rng=0), nn.Linear(2, 5, rng=0)

        def forward(self, x):
            return {"y": self.used(x)}

    rows = nn.summary(Two(), (1, 2), show=False).rows
    assert [(row.shape, row.calls) for row in rows] == [(None, 1), ((1, 1), 1), (None, 0)]
    assert [row.parameters for row in rows] == [0, 3, 15]


def test_summary_counts_every_kind_of_product():
    def products(x, y, w):
        mg.conv2d(x, w, stride=2, padding=1, groups=2)
        mg.conv2d_weight(x, y, 3, stride=2, padding=1, groups=2)
        mg.conv_transpose2d(y, w, stride=2, padding=1, groups=2)
        mg.matmul(x, x.mT)
        return mg.linear(x, np.ones((7, 5)), np.ones(7))

    rows = nn.summary(nn.Lambda(products), (2, 4, 5, 5), (2, 6, 3, 3), np.ones((6, 2, 3, 3)), show=False).rows
    convolution = 2 * 6 * 3 * 3 * 2 * 3 * 3  # all three sides of the triangle: N · OH · OW · O · C/groups · K
    assert rows[0].multiply_adds == 3 * convolution + 2 * 4 * 5 * 5 * 5 + 2 * 4 * 5 * 5 * 7


def test_summary_inputs(backend):
    table = on(backend, nn.Embedding(7, 3, rng=0))
    for labels in (np.array([1, 2]), Tensor([1, 2], backend=backend)):
        assert nn.summary(table, labels, show=False).rows[0].shape == (2, 3)
    seen = []
    layer = on(backend, nn.Linear(3, 2, rng=0))
    net = nn.Sequential(nn.Lambda(lambda x: seen.append(x) or x), layer)
    nn.summary(net, (4, 3), show=False)
    assert (seen[0].dtype, seen[0].backend, seen[0].numpy().any()) == ("float64", backend, False)
    with pytest.raises(TypeError, match=r"summary: input 0 is 4; give a shape with the batch in front"):
        nn.summary(net, 4, 3)


def test_summary_within_a_trace():
    """Both look on through the same window: afterwards the trace is back in its place."""
    with mg.trace(show=False) as t:
        nn.summary(nn.Linear(3, 2, rng=0), (1, 3), show=False)
        mg.exp(1.0)
    assert [event.op for event in t.events] == ["exp"]
