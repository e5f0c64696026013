"""Which arrays are whose, moving between backends, and the one-line errors where one is missing."""

import ctypes
import importlib
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from small_runs import BATCH, NOISE, images, mlp

import minigan as mg
from minigan import Tensor, grad
from minigan.errors import BackendError
from minigan.gpu import setup as cuda
from minigan.testing.strict import StrictArray
from minigan.training import command_line


def test_numpy_is_always_available():
    assert "numpy" in mg.backend.available()
    assert mg.backend.xp_of(np.ones(1)) is np


def test_an_unknown_backend():
    with pytest.raises(BackendError, match=r"there is no backend 'jax'; choose one of: cupy, numpy"):
        Tensor([1.0], backend="jax")
    with pytest.raises(TypeError, match="list is not an array of a known backend"):
        mg.backend.xp_of([1.0])


# ------------------------------------------------------------------ what may stand in the way of CuPy
#
# What CuPy says without a driver, NVRTC or a home was seen in CuPy 13.6 and 14.2. What CUDA says where there
# is a driver (no device, no memory) was not.


def pretend_cupy(monkeypatch, cupy, wheels=(), driver=0):
    """Make `import cupy` give this (an exception is raised), with these packages and this CUDA's driver."""
    monkeypatch.setattr(mg.backend, "_by_name", {"numpy": mg.backend.get("numpy")})
    monkeypatch.setattr(mg.backend, "_by_type", dict(mg.backend._by_type))
    monkeypatch.setattr(mg.backend, "_xp_by_type", dict(mg.backend._xp_by_type))
    monkeypatch.setattr(cuda, "cupy_wheels", lambda: list(wheels))
    monkeypatch.setattr(cuda, "cuda_of_driver", lambda: driver)
    real = importlib.import_module

    def fake(name, *args):
        if name != "cupy":
            return real(name, *args)
        if isinstance(cupy, BaseException):
            raise cupy
        return cupy

    monkeypatch.setattr(cuda.importlib, "import_module", fake)


class DeviceArray(np.ndarray):
    """The arrays of the CuPy that these tests make up."""


def answer(value):
    """A function that gives this value; an exception is raised."""

    def give(*args, **settings):
        if isinstance(value, BaseException):
            raise value
        return value

    return give


def cupy_that(devices=1, runtime=13020, driver=13000, ones=None):
    """A CuPy with so many devices that computes, unless one of its parts is an exception."""
    made = np.ones((2, 2), "f4").view(DeviceArray) if ones is None else ones
    calls = types.SimpleNamespace(
        getDeviceCount=answer(devices),
        runtimeGetVersion=answer(runtime),
        driverGetVersion=answer(driver),
        memGetInfo=answer((3 * 2**30, 8 * 2**30)),
    )
    device = answer(types.SimpleNamespace(synchronize=answer(None)))
    return types.SimpleNamespace(
        cuda=types.SimpleNamespace(runtime=calls, Device=device),
        ndarray=DeviceArray,
        ones=answer(made),
        asarray=lambda array: np.asarray(array).view(DeviceArray),
        asnumpy=np.asarray,
    )


def named(name, module, base):
    """An exception class of CuPy's."""
    return type(name, (base,), {"__module__": module})


CUDARuntimeError = named("CUDARuntimeError", "cupy_backends.cuda.api.runtime", RuntimeError)
CUBLASError = named("CUBLASError", "cupy_backends.cuda.libs.cublas", RuntimeError)
OutOfMemoryError = named("OutOfMemoryError", "cupy.cuda.memory", MemoryError)
TOO_OLD = CUDARuntimeError(
    "cudaErrorInsufficientDriver: CUDA driver version is insufficient for CUDA runtime version"
)
NO_DEVICE = CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
PATHFINDER = (
    'Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: libnvrtc.so.13 or libnvrtc.so.12\n'
    '  listdir("/usr/lib/nvidia/cu13/lib"):\n    libcudart.so.13\n'
)
FOR_ALL = 'for CUDA 12: pip install "cupy-cuda12x[ctk]", for CUDA 13: pip install "cupy-cuda13x[ctk]"'
ELSE = "see docs/gpu.md, or use --backend numpy"
ONE, OTHER = ["cupy-cuda12x"], ["cupy-cuda13x"]


NOT_INSTALLED = ModuleNotFoundError("No module named 'cupy'", name="cupy")

CASES = [
    pytest.param(NOT_INSTALLED, [], 0, f"CuPy is not installed; {FOR_ALL}", id="not installed"),
    pytest.param(
        NOT_INSTALLED, [], 12040,
        'CuPy is not installed; pip install "cupy-cuda12x[ctk]" (the NVIDIA driver offers CUDA 12.4)',
        id="not installed, driver for 12",
    ),
    pytest.param(
        NOT_INSTALLED, [], 14010,
        'CuPy is not installed; pip install "cupy-cuda13x[ctk]" (the NVIDIA driver offers CUDA 14.1)',
        id="not installed, driver newer than all",
    ),
    pytest.param(
        NOT_INSTALLED, ONE, 0, f"CuPy does not load (No module named 'cupy'); {ELSE}",
        id="a package without files",
    ),
    pytest.param(
        types.SimpleNamespace(), ONE, 0,
        f"CuPy does not load ('types.SimpleNamespace' object has no attribute 'cuda'); {ELSE}",
        id="a package with half of its files",
    ),
    pytest.param(
        ImportError("\n====\nFailed to import CuPy.\n\n  ImportError: libcuda.so.1: no such file\n===="),
        [], 0,
        f"CuPy does not load (Failed to import CuPy. ImportError: libcuda.so.1: no such file); {ELSE}",
        id="does not load",
    ),
    pytest.param(
        PermissionError(13, "Permission denied", "/home/me/.cupy"), OTHER, 13000,
        f"CuPy does not load ([Errno 13] Permission denied: '/home/me/.cupy'); {ELSE}",
        id="no place for kernels",
    ),
    pytest.param(
        cupy_that(devices=TOO_OLD, driver=0), OTHER, 0,
        "there is no NVIDIA driver; install one, version 580 or later for CUDA 13, or 525 or later for "
        "CUDA 12 (nvidia-smi shows it; a container needs --gpus all), or use --backend numpy",
        id="no driver",
    ),
    pytest.param(
        cupy_that(devices=TOO_OLD, driver=12040), OTHER, 12040,
        "this CuPy wants CUDA 13.2, the NVIDIA driver offers CUDA 12.4; update the NVIDIA driver, or pip "
        'uninstall -y cupy-cuda13x, then pip install "cupy-cuda12x[ctk]"',
        id="driver too old for 13",
    ),
    pytest.param(
        cupy_that(devices=TOO_OLD, runtime=12090, driver=11040), ONE, 11040,
        "this CuPy wants CUDA 12.9, the NVIDIA driver offers CUDA 11.4; update the NVIDIA driver",
        id="driver too old for all",
    ),
    pytest.param(
        cupy_that(devices=TOO_OLD, runtime=12090, driver=12000), ONE, 12000,
        "this CuPy wants CUDA 12.9, the NVIDIA driver offers CUDA 12.0; update the NVIDIA driver",
        id="driver a little too old",
    ),
    pytest.param(
        cupy_that(devices=0), OTHER, 13000,
        "there is a driver, but no GPU that this process may see; does nvidia-smi list one? A container "
        "needs --gpus all; or use --backend numpy",
        id="no device",
    ),
    pytest.param(
        cupy_that(devices=NO_DEVICE), OTHER, 13000,
        "there is a driver, but no GPU that this process may see; does nvidia-smi list one? A container "
        "needs --gpus all; or use --backend numpy",
        id="no device, as CUDA says it",
    ),
    pytest.param(
        cupy_that(ones=CUDARuntimeError("cudaErrorMemoryAllocation: out of memory")), OTHER, 13000,
        "the GPU has no memory left to begin with (cudaErrorMemoryAllocation: out of memory); close "
        "other programs that use it (nvidia-smi lists them), or choose another GPU with "
        "CUDA_VISIBLE_DEVICES",
        id="a full device",
    ),
    pytest.param(
        cupy_that(ones=RuntimeError(PATHFINDER)), OTHER, 13000,
        'CuPy does not work (RuntimeError: Failure finding "libnvrtc.so.13 or libnvrtc.so.12": No such file: '
        'libnvrtc.so.13 or libnvrtc.so.12 listdir("/usr/lib/nvidia/cu13/lib"): libcudart.so.13); ' + ELSE,
        id="without NVRTC",
    ),
    pytest.param(
        cupy_that(devices=CUDARuntimeError("cudaErrorSystemNotReady: busy")), OTHER, 13000,
        f"CuPy does not work (CUDARuntimeError: cudaErrorSystemNotReady: busy); {ELSE}",
        id="nothing answers",
    ),
    pytest.param(
        cupy_that(ones=np.zeros((2, 2))), OTHER, 13000,
        f"CuPy does not work (ArithmeticError: 1 + 1 came out as 0); {ELSE}",
        id="wrong results",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("cupy", "wheels", "driver", "message"), CASES)
def test_where_cupy_or_the_device_is_missing_one_line_says_so(monkeypatch, cupy, wheels, driver, message):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    pretend_cupy(monkeypatch, cupy, wheels, driver)
    with pytest.raises(BackendError) as caught:
        Tensor([1.0], backend="cupy")
    assert str(caught.value) == f"backend 'cupy': {message}"
    assert mg.backend.available() == ["numpy"]


def test_the_page_about_gpus_has_all_of_them():
    page = (Path(__file__).parent.parent / "docs" / "gpu.md").read_text("utf-8")
    for case in CASES:
        beginning = " ".join(re.split(r"[;(]", case.values[-1])[0].split()[:4])
        assert f"| {beginning}" in page, beginning


@pytest.mark.parametrize("visible", ["", "-1"])
def test_a_device_may_be_hidden(monkeypatch, visible):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    pretend_cupy(monkeypatch, cupy_that(devices=NO_DEVICE))
    with pytest.raises(BackendError, match=f"CUDA_VISIBLE_DEVICES is '{visible}': unset it"):
        Tensor([1.0], backend="cupy")


def test_two_cupys_are_told_before_either_is_imported(monkeypatch):
    pretend_cupy(monkeypatch, AssertionError("import cupy"), ["cupy-cuda12x", "cupy-cuda13x"], 13000)
    with pytest.raises(BackendError) as caught:
        Tensor([1.0], backend="cupy")
    assert str(caught.value) == (
        "backend 'cupy': 2 packages of CuPy are installed (cupy-cuda12x, cupy-cuda13x) and overwrite each "
        "other's files; pip uninstall -y cupy-cuda12x cupy-cuda13x, then "
        'pip install "cupy-cuda13x[ctk]" (the NVIDIA driver offers CUDA 13.0)'
    )


def test_a_cupy_that_works_computes(monkeypatch):
    pretend_cupy(monkeypatch, cupy_that(), OTHER, 13000)
    x = Tensor([1.0, 2.0], backend="cupy")
    assert x.backend == "cupy"
    assert mg.backend.available() == ["numpy", "cupy"]
    assert mg.backend.memory() == (3 * 2**30, 8 * 2**30)


def test_packages_of_cupy_are_found_by_what_pip_leaves_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    importlib.invalidate_caches()
    assert cuda.cupy_wheels() == []
    for name in ("cupy_cuda13x-14.2.0", "cupy_cuda12x-13.6.0", "cupyx_of_mine-1.0", "numpy-2.4.6"):
        folder = tmp_path / f"{name}.dist-info"
        folder.mkdir()
        package, _, number = name.partition("-")
        text = f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {number}\n"
        (folder / "METADATA").write_text(text)
    importlib.invalidate_caches()
    assert cuda.cupy_wheels() == ["cupy-cuda12x", "cupy-cuda13x"]


@pytest.mark.parametrize(("status", "number", "answer"), [(0, 12040, 12040), (1, 12040, 0), (None, 0, 0)])
def test_the_driver_is_asked_for_its_cuda(monkeypatch, status, number, answer):
    def version(pointer):
        pointer._obj.value = number
        return status

    def library(name):
        if status is None:
            raise OSError(f"{name}: cannot open shared object file")
        return types.SimpleNamespace(cuDriverGetVersion=version)

    monkeypatch.setattr(ctypes, "CDLL", library)
    assert cuda.cuda_of_driver() == answer


# ------------------------------------------------------------------------- a device that has no room

ASKED = "Out of memory allocating 1,073,741,824 bytes (allocated so far: 5,368,709,120 bytes)."


def program(monkeypatch, tmp_path, capsys, error, *arguments, begin=True, told=True):
    """What a training program says, in one line, when a step, or what comes before, runs into this error."""
    gpu = mg.backend.Backend(
        "gpu", DeviceArray, np, np.asarray, np.asarray,
        memory=answer((3 * 2**30, 8 * 2**30) if told else CUDARuntimeError("cudaErrorUnknown")),
    )  # fmt: skip
    monkeypatch.setattr(mg.backend, "_by_name", {"numpy": mg.backend.get("numpy"), "gpu": gpu})
    monkeypatch.setattr(sys, "argv", ["examples/small.py"])
    monkeypatch.chdir(tmp_path)
    parser = command_line.arguments("A small run.", "small", epochs=1, images=False)
    parser.prog = "small.py"
    parser.add_argument("--filters", type=command_line.positive_int, default=1)

    def main(options):
        if not begin:
            raise error
        game = command_line.game(options, *mlp(), lr=1e-2, betas=(0.5, 0.999))
        settings = {"noise": NOISE, "batch": BATCH, "samples": 4, "before_step": answer(error)}
        command_line.trainer(options, game, images(), **settings).run(options.epochs)

    with pytest.raises(SystemExit) as stop:
        command_line.run(main, parser, [*arguments, "--quiet"])
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_a_run_on_a_full_device_says_what_it_needs_and_what_helps(monkeypatch, tmp_path, capsys):
    line = program(monkeypatch, tmp_path, capsys, OutOfMemoryError(ASKED), "--out", "run")
    assert line == (
        "small.py: the GPU has run out of memory: 1.0 GiB more were asked for, this program has 5.0 GiB, the "
        "GPU has 8.0 GiB in all, 3.0 GiB of them free; close other programs that use the GPU (nvidia-smi "
        "lists them), or take smaller batches or networks"
    )


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError("in other words"),
        CUDARuntimeError("cudaErrorMemoryAllocation: out of memory"),
        CUBLASError("CUBLAS_STATUS_ALLOC_FAILED"),
    ],
    ids=repr,
)
def test_a_full_device_has_several_names(monkeypatch, tmp_path, capsys, error):
    line = program(monkeypatch, tmp_path, capsys, error, begin=False)
    assert line.startswith(
        "small.py: the GPU has run out of memory: the GPU has 8.0 GiB in all, 3.0 GiB of them free; close"
    )


def test_a_device_that_does_not_answer_any_more(monkeypatch, tmp_path, capsys):
    line = program(monkeypatch, tmp_path, capsys, OutOfMemoryError("no"), begin=False, told=False)
    assert line.startswith("small.py: the GPU has run out of memory; close")


def test_a_limit_is_told():
    text = ASKED.replace(").", ", limit set to: 6,442,450,944 bytes).")
    assert "it may have 6.0 GiB (CUPY_GPU_MEMORY_LIMIT)" in mg.backend.shortage(OutOfMemoryError(text))


def test_the_computers_own_memory_is_another_matter(monkeypatch, tmp_path, capsys):
    line = program(monkeypatch, tmp_path, capsys, MemoryError("Unable to allocate 3 TiB"), begin=False)
    assert line == "small.py: Unable to allocate 3 TiB"


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cudaErrorMemoryAllocation"),  # not CuPy's
        CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered"),
        named("OutOfMemoryError", "torch.cuda", RuntimeError)("CUDA out of memory"),
    ],
    ids=repr,
)
def test_other_errors_are_left_alone(error):
    assert mg.backend.shortage(error) is None

    def main(options):
        raise error

    with pytest.raises(type(error)) as caught:
        command_line.run(main, command_line.arguments("A small run.", "small", epochs=1), [])
    assert caught.value is error


# ------------------------------------------------------------------------------- arrays and their homes


def test_the_same_on_this_machine_if_it_has_no_gpu():
    if "cupy" in mg.backend.available():
        pytest.skip("CuPy works here")
    with pytest.raises(BackendError, match=r"^backend 'cupy': .*(pip install|nvidia-smi|docs/gpu\.md)"):
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


@pytest.mark.parametrize("memory", [(0, 1, 2, 3), (3, 2, 1, 0), (0, 2, 3, 1), (1, 0, 3, 2)], ids=str)
def test_moving_keeps_the_order_in_memory(memory, backend):
    values = np.arange(120.0).reshape(2, 3, 4, 5)
    x = mg.nn.module.parameter(values, "x", "float32", memory)
    y = x.to(backend)
    z = y.to("numpy")
    assert y.data.strides == z.data.strides == x.data.strides
    np.testing.assert_array_equal(z.data, values)
    network = mg.nn.Sequential(mg.nn.Linear(2, 3, rng=0))
    network[0].weight = x
    network.to(backend)
    assert network[0].weight.data.strides == y.data.strides
    network.to("numpy")
    assert network[0].weight.data.strides == z.data.strides


@pytest.mark.parametrize(
    "view", [lambda a: a[:, ::-2], lambda a: np.broadcast_to(a[0], (2, 3, 4)), lambda a: a[:, :, 1:3].T]
)
def test_views_arrive_as_what_they_show(view, backend):
    a = view(np.arange(24.0).reshape(2, 3, 4))
    there = mg.backend.get(backend).from_numpy(a)
    np.testing.assert_array_equal(mg.backend.to_numpy(there), a)


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


ORDERS = {  # what becomes of the order in memory: on CuPy, and so on strict
    "C": {
        "z + 1": lambda xp, z: z + 1,
        "-z": lambda xp, z: -z,
        "exp": lambda xp, z: xp.exp(z),
        "where": lambda xp, z: xp.where(z > 0, z, 1),
        "clip": lambda xp, z: xp.clip(z, 0, 1),
        "maximum": lambda xp, z: xp.maximum(z, 0),
        "matmul": lambda xp, z: xp.matmul(z, xp.eye(z.shape[-1])),
        "z.copy": lambda xp, z: z.copy(),
        "z[[...]]": lambda xp, z: z[[0, 1]],
        "take": lambda xp, z: z.take(xp.asarray([0, 1]), axis=1),
        "concatenate": lambda xp, z: xp.concatenate([z, z], axis=1),
        "sum": lambda xp, z: z.sum(axis=-1, keepdims=True),
    },
    "kept": {
        "empty_like": lambda xp, z: xp.empty_like(z),
        "zeros_like": lambda xp, z: xp.zeros_like(z),
        "astype": lambda xp, z: z.astype("float32"),
        "copy": lambda xp, z: xp.copy(z),
        "array": lambda xp, z: xp.array(z),
        "out": lambda xp, z: xp.add(z, 1, out=xp.empty_like(z)),
        "in place": lambda xp, z: z.__iadd__(1),
        "z[...]": lambda xp, z: z[...],
    },
}


@pytest.mark.parametrize(
    ("order", "name"), [(order, name) for order, some in ORDERS.items() for name in some]
)
def test_order_in_memory(order, name, backend):
    if backend == "numpy":
        pytest.skip("NumPy keeps the order nearly everywhere")
    xp = mg.backend.get(backend).xp
    for shape, axes in (((3, 4), (1, 0)), ((2, 5, 4, 3), (0, 3, 1, 2))):  # by columns; the channels last
        z = xp.zeros(shape).transpose(axes)
        y = ORDERS[order][name](xp, z)
        if order == "C":
            assert y.flags.c_contiguous
        else:
            assert [s // y.itemsize for s in y.strides] == [s // z.itemsize for s in z.strides]


def test_arrays_of_a_device_are_not_numpys(backend):
    if backend == "numpy":
        pytest.skip("NumPy's are")
    x = mg.backend.get(backend).from_numpy(np.ones((2, 3))).copy()
    assert not isinstance(x, np.ndarray)
    with pytest.raises(TypeError):
        np.asarray(x)
    assert x.base is None
    assert x.T.base is x and x.T[1:].base is x
    xp = mg.backend.xp_of(x)
    assert xp.lib.stride_tricks.as_strided(x, (2,), (8,)).base is None  # though it is a view
    assert xp.may_share_memory(x, x[1:]) and not xp.may_share_memory(x, x.copy())
