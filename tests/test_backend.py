"""Which arrays are whose, moving between backends, and the one-line errors where one is missing."""

import importlib
import sys
import types

import numpy as np
import pytest

import minigan as mg
from minigan import Tensor, grad
from minigan.errors import BackendError
from minigan.testing.strict import StrictArray


def test_numpy_is_always_available():
    assert "numpy" in mg.backend.available()
    assert mg.backend.xp_of(np.ones(1)) is np


def test_an_unknown_backend():
    with pytest.raises(BackendError, match=r"there is no backend 'jax'; choose one of: cupy, numpy"):
        Tensor([1.0], backend="jax")
    with pytest.raises(TypeError, match="list is not an array of a known backend"):
        mg.backend.xp_of([1.0])


def pretend_cupy(monkeypatch, cupy):
    """Make `import cupy` give this (an exception is raised)."""
    monkeypatch.setattr(mg.backend, "_by_name", {"numpy": mg.backend.get("numpy")})
    real = importlib.import_module

    def fake(name, *args):
        if name != "cupy":
            return real(name, *args)
        if isinstance(cupy, BaseException):
            raise cupy
        return cupy

    monkeypatch.setattr(mg.backend.importlib, "import_module", fake)


def cupy_with_devices(count):
    def device_count():
        if isinstance(count, Exception):
            raise count
        return count

    runtime = types.SimpleNamespace(getDeviceCount=device_count)
    return types.SimpleNamespace(cuda=types.SimpleNamespace(runtime=runtime))


@pytest.mark.parametrize(
    ("cupy", "message"),
    [
        (
            ModuleNotFoundError("No module named 'cupy'", name="cupy"),
            "backend 'cupy': CuPy is not installed; for CUDA 12: pip install cupy-cuda12x, "
            "for CUDA 13: pip install cupy-cuda13x",
        ),
        (
            ImportError(
                "\n====\nFailed to import CuPy.\n\nlibcublas.so.12: cannot open shared object file\n===="
            ),
            "backend 'cupy': CuPy does not load (libcublas.so.12: cannot open shared object file); "
            "for CUDA 12: pip install cupy-cuda12x, for CUDA 13: pip install cupy-cuda13x",
        ),
        (
            cupy_with_devices(
                RuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")
            ),
            "backend 'cupy': CuPy finds no CUDA device (cudaErrorInsufficientDriver: CUDA driver version is "
            "insufficient); it needs an NVIDIA GPU and its driver (does nvidia-smi list one?), "
            "or use --backend numpy",
        ),
        (
            cupy_with_devices(0),
            "backend 'cupy': CuPy finds no CUDA device; it needs an NVIDIA GPU that this process may see "
            "(CUDA_VISIBLE_DEVICES?), or use --backend numpy",
        ),
    ],
    ids=["not installed", "does not load", "driver too old", "no device"],
)
def test_where_cupy_or_the_device_is_missing_one_line_says_so(monkeypatch, cupy, message):
    pretend_cupy(monkeypatch, cupy)
    with pytest.raises(BackendError) as caught:
        Tensor([1.0], backend="cupy")
    assert str(caught.value) == message
    assert mg.backend.available() == ["numpy"]


def test_the_same_on_this_machine_if_it_has_no_gpu():
    if "cupy" in mg.backend.available():
        pytest.skip("CuPy works here")
    with pytest.raises(BackendError, match=r"^backend 'cupy': .*(pip install|nvidia-smi)"):
        Tensor([1.0]).to("cupy")
    assert "cupy" not in sys.modules or "cupy" not in mg.backend.available()


def test_moving_there_and_back(backend):
    x = Tensor(np.array([1.0, 2.0], "f4"), requires_grad=True)
    y = x.to(backend)
    assert (y.backend, y.dtype) == (backend, np.float32)
    assert y.to(backend) is y
    z = (y * y * y).to("numpy")
    assert z.backend == "numpy"
    g = grad(z.sum(), x, create_graph=True)
    np.testing.assert_allclose(g.numpy(), [3.0, 12.0])
    np.testing.assert_allclose(grad(g.sum(), x).numpy(), [6.0, 12.0])


def test_a_tensor_from_an_array_of_a_backend_stays_there(backend):
    home = mg.backend.get(backend)
    x = Tensor(home.xp.asarray([1.0, 2.0]))
    assert x.backend == backend
    if backend != "numpy":
        with pytest.raises(TypeError, match="move it first"):
            Tensor(home.xp.asarray([1.0]), backend="numpy")


def test_generators_are_seeded(backend):
    draw = [mg.backend.generator(7, backend).random(3) for _ in range(2)]
    np.testing.assert_array_equal(*(np.asarray(d.get() if hasattr(d, "get") else d) for d in draw))


# ------------------------------------------------------- the strict backend keeps its promises


def strict(value):
    return mg.backend.get("strict").from_numpy(np.asarray(value, float))


@pytest.mark.parametrize(
    "mix",
    [
        lambda s, a: s + a,
        lambda s, a: a * s,
        lambda s, a: s @ a,
        lambda s, a: np.maximum(s, a),
        lambda s, a: np.concatenate([s, a]),
        lambda s, a: np.where(s > 0, s, a),
        lambda s, a: s.__iadd__(a),
        lambda s, a: s.__setitem__(slice(None), a),
        lambda s, a: s[a.astype(int)],
        lambda s, a: np.add(s, 1.0, out=a),
        lambda s, a: mg.backend.xp_of(s).stack([s, a]),
        lambda s, a: mg.backend.xp_of(s).exp(a),
        lambda s, a: mg.backend.scatter_add(s, np.array([0, 1]), a),
    ],
)
def test_strict_arrays_refuse_plain_ones(mix):
    with pytest.raises(TypeError, match="plain NumPy array"):
        mix(strict([1.0, 2.0]), np.array([0.0, 1.0]))


def test_strict_arrays_never_become_scalars_or_plain_arrays():
    s, xp = strict([[1.0, 2.0], [3.0, 4.0]]), mg.backend.xp_of(strict(1.0))
    results = [s.sum(), s.max(axis=0), s[0, 0], s[0], s.T, s.reshape(-1), s + 1, 2.0 * s, s @ s, s.mean()]
    results += [xp.exp(s), xp.zeros((2, 2)), xp.where(s > 1, s, 0.0), np.exp(s), np.sum(s), s.copy(), s.var()]
    results += [s.astype("f4"), s > 0, xp.add(s, s, out=xp.empty((2, 2))), xp.einsum("ij->i", s), s.squeeze()]
    for result in results:
        assert type(result) is StrictArray
    s += 1.0
    s[0] = 0.0
    np.testing.assert_array_equal(mg.backend.to_numpy(s), [[0.0, 0.0], [4.0, 5.0]])
