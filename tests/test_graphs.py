"""gpu/graphs.py, with CuPy: products by a cuBLAS handle of our own, and what CUDA records."""

import ctypes

import numpy as np
import pytest
from small_runs import convolutions, images, mlp, small_game, small_trainer

from minigan import backend
from minigan.gan import InstanceNoise
from minigan.gpu import graphs
from minigan.kernels import linear

pytestmark = pytest.mark.usefixtures("cupy")


class Watched:
    """cuBLAS. `calls`: what it was asked, (name, arguments)."""

    def __init__(self, library):
        self._library, self.calls = library, []

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name, args))
            return getattr(self._library, name)(*args)

        return call

    def arguments(self, name):
        return [args[1:] for called, args in self.calls if called == name]


@pytest.fixture
def blas():
    made = graphs.Blas(graphs._cublas())
    made._library = Watched(made._library)
    return made


def refuse(*args, **options):
    raise NotImplementedError("CuPy's own product")


# ------------------------------------------------------------------------------------- the products

LAYOUTS = {  # of a matrix in the memory of the device
    "rows": lambda cp, x: cp.array(x, order="C"),
    "columns": lambda cp, x: cp.array(x, order="F"),
    "rows with gaps": lambda cp, x: cp.array(np.pad(x, ((0, 0), (1, 2))))[:, 1 : 1 + x.shape[1]],
    "columns with gaps": lambda cp, x: cp.array(np.pad(x, ((1, 2), (0, 0))), order="F")[1 : 1 + x.shape[0]],
    "every other": lambda cp, x: cp.array(np.repeat(np.repeat(x, 2, 0), 2, 1))[::2, ::2],
    "backwards": lambda cp, x: cp.array(x[::-1, ::-1])[::-1, ::-1],
}


@pytest.mark.parametrize("out", [None, *LAYOUTS])
@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
def test_products_of_all_layouts(first, second, out, blas, cupy, rng):
    for dtype in ("float32", "float64"):
        for m, k, n in [(2, 3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1), (1, 1, 1), (5, 2, 1), (1, 4, 1)]:
            a, b = (rng.integers(-9, 9, shape).astype(dtype) for shape in ((m, k), (k, n)))
            room = None if out is None else LAYOUTS[out](cupy, np.full((m, n), np.nan, dtype))
            made = blas.matmul(LAYOUTS[first](cupy, a), LAYOUTS[second](cupy, b), room)
            assert made.dtype == dtype
            assert (cupy.asnumpy(made) == a @ b).all()  # whole numbers: no rounding
            assert room is None or made is room


def test_rows_that_share_their_memory(blas, cupy, rng):
    row = cupy.array(rng.integers(-9, 9, (1, 4)).astype("float32"))
    same = cupy.broadcast_to(row, (3, 4))  # from one row to the next: no step at all
    assert (blas.matmul(same, cupy.eye(4, dtype="float32")) == same).all()
    assert (blas.matmul(cupy.eye(3, dtype="float32"), same) == same).all()
    windows = cupy.lib.stride_tricks.as_strided(row, (3, 2), (4, 4))  # a step of one entry, rows of two
    assert (blas.matmul(windows.T, cupy.eye(3, dtype="float32")) == windows.T).all()
    assert (blas.matmul(windows, cupy.eye(2, dtype="float32")) == windows).all()


def test_nothing_beside_the_result_is_written_to(blas, cupy):
    wide = cupy.zeros((4, 9), "float32")
    blas.matmul(cupy.ones((4, 3), "float32"), cupy.ones((3, 5), "float32"), wide[:, 2:7])
    assert (wide[:, 2:7] == 3).all() and wide.sum() == 60


def test_products_by_a_vector_and_of_nothing(blas, cupy):
    a = cupy.arange(6, dtype="float32").reshape(2, 3)
    assert blas.matmul(a, cupy.ones(3, "float32")).tolist() == [3, 12]
    assert blas.matmul(a.T, cupy.ones(2, "float32")).tolist() == [3, 5, 7]
    assert (blas.matmul(a[:, :0], a[:0]) == cupy.zeros((2, 3))).all()
    assert blas.matmul(a[:0], a.T).shape == (0, 2)
    assert blas.matmul(a, a.T[:, :0]).shape == (2, 0)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (((2, 2, 2), "float32"), ((2, 2, 2), "float32")),
        (((2, 2), "float32"), ((2, 2), "float64")),
        (((2, 2), "float16"), ((2, 2), "float16")),
        ((2, "float32"), ((2, 2), "float32")),
    ],
)
def test_other_products_are_left_to_cupy(a, b, blas, cupy, monkeypatch):
    a, b = cupy.ones(*a), cupy.ones(*b)
    monkeypatch.setattr(graphs.cupy, "matmul", refuse)
    with pytest.raises(NotImplementedError, match="CuPy's own"):
        blas.matmul(a, b)


def test_the_workspace_follows_the_stream(blas, cupy):
    a = cupy.eye(2, dtype="float32")
    one, other = (cupy.cuda.Stream(non_blocking=True) for _ in "ab")
    for stream in (one, other, other, cupy.cuda.Stream.null):
        with stream:
            blas.matmul(a, a)
    streams = [one.ptr, other.ptr, cupy.cuda.Stream.null.ptr]
    assert blas._library.arguments("cublasSetStream_v2") == [(stream,) for stream in streams]
    room = (graphs._address(blas._workspace), graphs.WORKSPACE)
    assert blas._library.arguments("cublasSetWorkspace_v2") == [room] * 3
    assert blas._workspace.nbytes == graphs.WORKSPACE
    asked = [name for name, _ in blas._library.calls]
    assert asked[:3] == ["cublasSetStream_v2", "cublasSetWorkspace_v2", "cublasSgemm_v2"]
    assert asked.count("cublasSgemm_v2") == 4


def test_tf32_if_cupy_uses_it(blas):
    for tf32 in (False, True, True, False):
        blas.choose_precision(tf32)
    assert blas._library.arguments("cublasSetMathMode") == [(3,), (0,)]


def test_what_cublas_refuses_is_an_error(blas, cupy):
    blas._handle = ctypes.c_void_p(0)
    with pytest.raises(RuntimeError, match=r"^cublasSetStream_v2 failed with status 1$"):
        blas.matmul(cupy.eye(2), cupy.eye(2))


# ------------------------------------------------------------------------------------ the recording


@pytest.fixture
def recorder():
    return graphs.Recorder()


def test_a_recording_does_nothing_and_a_replay_does_all(recorder, cupy):
    x, y = cupy.array([1.0, 2.0]), cupy.zeros(2)

    def work():
        y[...] = x * 2.0
        total = (x + 1.0).sum()
        cupy.add(y, x, out=y)
        return total, y.reshape(2, 1).T.copy()

    work()  # compiles the kernels
    y[...] = 0
    graph, (total, copy) = recorder.record(work)
    assert y.tolist() == [0.0, 0.0]
    for factor in (1.0, 10.0):
        x[...] = cupy.array([factor, 3 * factor])
        graph.replay()
        assert float(total) == 4 * factor + 2
        assert copy.tolist() == [[3 * factor, 9 * factor]] and y.tolist() == [3 * factor, 9 * factor]


def test_numbers_of_the_host_are_those_of_the_recording(recorder, cupy):
    x, number = cupy.array([1.0]), [2.0]
    graph, y = recorder.record(lambda: x * number[0])
    number[0] = 5.0
    graph.replay()
    assert y.tolist() == [2.0]


def test_a_recording_keeps_the_memory_that_was_made_meanwhile(recorder, cupy):
    """Nobody else may get it: a replay writes to it."""
    x = cupy.ones(1000)
    graph, y = recorder.record(lambda: (x + 1.0) * 3.0)  # between the two there was an array
    others = [cupy.zeros(1000) for _ in range(5)]
    graph.replay()
    assert (y == 6).all() and not any(other.any() for other in others)


MEETINGS = {
    "float": float,
    "bool": bool,
    "item": lambda x: x.item(),
    "tolist": lambda x: x.tolist(),
    "to_numpy": backend.to_numpy,
    "from_numpy": lambda x: backend.get("cupy").from_numpy(np.ones(3)),
}


@pytest.mark.parametrize("meet", MEETINGS)
def test_a_recording_does_not_meet_the_host(meet, recorder, cupy):
    x = cupy.array(1.0)
    MEETINGS[meet](x)
    with pytest.raises(RuntimeError, match="captur"):
        recorder.record(lambda: MEETINGS[meet](x))
    MEETINGS[meet](x)  # and afterwards all is as usual


def test_a_recording_that_fails_is_ended(recorder, cupy):
    x = cupy.ones(3)

    def work():
        x + 1.0
        raise NotImplementedError("in the middle")

    with pytest.raises(NotImplementedError, match="in the middle"):
        recorder.record(work)
    graph, y = recorder.record(lambda: x + 1.0)
    graph.replay()
    assert (y == 2).all()


def test_products_inside_are_ours(recorder, cupy, monkeypatch):
    a = cupy.eye(2)
    chosen = []
    monkeypatch.setattr(recorder._blas, "choose_precision", chosen.append)
    monkeypatch.setattr(recorder._blas, "matmul", lambda a, b, out: "ours")
    core = cupy._core
    before = core.get_compute_type("float32")
    with recorder.products():
        assert linear.matmul(a, a) == "ours"
        assert (linear.matmul(np.eye(2), np.eye(2)) == np.eye(2)).all()  # NumPy's are NumPy's
    assert (linear.matmul(a, a) == a).all()
    try:
        core.set_compute_type("float32", core._routines_linalg.COMPUTE_TYPE_TF32)
        with recorder.products():
            pass
    finally:
        core.set_compute_type("float32", before)
    assert chosen == [False, True]


def test_a_product_can_be_recorded(recorder, cupy, rng):
    a, b = (cupy.array(rng.integers(-9, 9, (3, 3)).astype("float32")) for _ in "ab")
    with recorder.products():
        graph, product = recorder.record(lambda: linear.matmul(a, b))
    b += 1
    graph.replay()
    assert (cupy.asnumpy(product) == cupy.asnumpy(a) @ cupy.asnumpy(b)).all()


# --------------------------------------------------------------------- which products go through it


@pytest.mark.parametrize("penalty", ["none", "gp", "r1"])
@pytest.mark.parametrize("kind", ["mlp", "convolutions"])
def test_all_products_of_linear_layers_and_convolutions(kind, penalty, counting, cupy):
    """CuPy would refuse any other product while a step is recorded."""
    g, d = mlp() if kind == "mlp" else convolutions(False)
    if kind == "convolutions":
        d = type(d)(*[layer for layer in d if not getattr(layer, "normalises", False)])
    g.to("cupy")
    d.to("cupy")
    run = small_trainer(None, small_game("wasserstein", penalty, (g, InstanceNoise(d, 0.1, rng=0))), images())
    ours = []

    def matmul(a, b, out=None):
        ours.append(a.shape)
        return cupy.matmul(a, b, out=out)

    token = linear.stand_in.set(matmul)
    try:
        with counting() as counts:
            run.train_step()
    finally:
        linear.stand_in.reset(token)
    assert len(ours) == counts.of("gemm").total() > 5
