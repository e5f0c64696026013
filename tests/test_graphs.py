"""gpu/graphs.py without a GPU: a stand-in for CuPy, and one for cuBLAS in C, called by ctypes."""

import ctypes
import shutil
import subprocess
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
from small_runs import images, mlp, small_game, small_trainer
from test_capture import convolutions

from minigan.gan import InstanceNoise
from minigan.gpu import graphs
from minigan.kernels import linear
from minigan.testing.strict import StrictNumPy, counting

# What cuBLAS's manual says of gemm: C = alpha op(A) op(B) + beta C, column by column. And what it refuses.
CUBLAS = """
#include <stddef.h>
#define API extern "C"
struct Seen { void *stream, *workspace; size_t size; int mode, products; } seen;
API Seen *look() { return &seen; }
static void *const HANDLE = (void *)0x123456789abcULL;  // does not fit 32 bits
API int cublasCreate_v2(void **handle) { *handle = HANDLE; return 0; }
API int cublasSetStream_v2(void *handle, void *stream) {
    if (handle != HANDLE) return 1;
    seen.stream = stream; seen.workspace = 0; seen.size = 0;
    return 0;
}
API int cublasSetWorkspace_v2(void *handle, void *workspace, size_t size) {
    if (handle != HANDLE || (size_t)workspace % 256) return 1;
    seen.workspace = workspace; seen.size = size;
    return 0;
}
API int cublasSetMathMode(void *handle, int mode) { seen.mode = mode; return handle != HANDLE; }

template <class Real> static int gemm(
    void *handle, int ta, int tb, int m, int n, int k, const Real *alpha, const Real *a, int lda,
    const Real *b, int ldb, const Real *beta, Real *c, int ldc) {
    if (handle != HANDLE) return 1;
    if (m < 0 || n < 0 || k < 0 || ta < 0 || ta > 1 || tb < 0 || tb > 1) return 7;
    if (lda < (ta ? k : m) || ldb < (tb ? n : k) || ldc < m || lda < 1 || ldb < 1 || ldc < 1) return 7;
    ++seen.products;
    for (int j = 0; j < n; ++j) for (int i = 0; i < m; ++i) {
        Real sum = 0;
        for (int l = 0; l < k; ++l)
            sum += (ta ? a[l + (size_t)i * lda] : a[i + (size_t)l * lda])
                 * (tb ? b[j + (size_t)l * ldb] : b[l + (size_t)j * ldb]);
        Real &out = c[i + (size_t)j * ldc];
        out = *alpha * sum + (*beta == 0 ? 0 : *beta * out);
    }
    return 0;
}
#define GEMM(name, Real) API int name(void *h, int ta, int tb, int m, int n, int k, const Real *alpha, \\
    const Real *a, int lda, const Real *b, int ldb, const Real *beta, Real *c, int ldc) { \\
    return gemm<Real>(h, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc); }
GEMM(cublasSgemm_v2, float)
GEMM(cublasDgemm_v2, double)
"""


class Seen(ctypes.Structure):
    _fields_ = [
        ("stream", ctypes.c_void_p), ("workspace", ctypes.c_void_p), ("size", ctypes.c_size_t),
        ("mode", ctypes.c_int), ("products", ctypes.c_int),
    ]  # fmt: skip


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    if shutil.which("g++") is None:
        pytest.skip("needs g++ to compile a stand-in for cuBLAS")
    path = tmp_path_factory.mktemp("cublas") / "cublas.cpp"
    path.write_text(CUBLAS)
    subprocess.run(["g++", "-shared", "-fPIC", "-Wall", "-o", f"{path}.so", str(path)], check=True)
    return ctypes.CDLL(f"{path}.so")


def refuse(*args, **options):
    raise NotImplementedError("CuPy's own product")


@pytest.fixture
def cupy(monkeypatch):
    """NumPy in CuPy's place; its stream has an address that does not fit 32 bits."""
    stream = SimpleNamespace(ptr=0x7EADBEEF0001)
    fake = SimpleNamespace(
        empty=aligned, matmul=refuse, ascontiguousarray=np.ascontiguousarray,
        cuda=SimpleNamespace(get_current_stream=lambda: stream), stream=stream,
    )  # fmt: skip
    monkeypatch.setattr(graphs, "cupy", fake)
    monkeypatch.setattr(graphs, "_address", lambda array: array.ctypes.data)
    return fake


def aligned(shape, dtype):
    """New memory as CuPy gives it, at a multiple of 256 bytes, full of NaN."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.full(size + 256, 0xFF, np.uint8)
    start = -room.ctypes.data % 256
    return room[start : start + size].view(dtype).reshape(shape)


@pytest.fixture
def blas(library, cupy):
    made = graphs.Blas(library)
    library.look.restype = ctypes.POINTER(Seen)
    made.seen = library.look().contents
    made.seen.products = 0
    return made


# ------------------------------------------------------------------------------------- the products

LAYOUTS = {
    "rows": lambda x: x.copy(),
    "columns": lambda x: np.asfortranarray(x),
    "rows with gaps": lambda x: np.pad(x, ((0, 0), (1, 2)))[:, 1 : 1 + x.shape[1]],
    "columns with gaps": lambda x: np.pad(x, ((1, 2), (0, 0))).copy("F")[1 : 1 + x.shape[0]],
    "every other": lambda x: np.repeat(np.repeat(x, 2, 0), 2, 1)[::2, ::2],
    "backwards": lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
}


@pytest.mark.parametrize("out", [None, *LAYOUTS])
@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("first", LAYOUTS)
def test_products_of_all_layouts(first, second, out, blas, rng):
    for dtype in ("float32", "float64"):
        for m, k, n in [(2, 3, 4), (1, 3, 4), (2, 1, 4), (2, 3, 1), (1, 1, 1), (5, 2, 1), (1, 4, 1)]:
            a = LAYOUTS[first](rng.integers(-9, 9, (m, k)).astype(dtype))
            b = LAYOUTS[second](rng.integers(-9, 9, (k, n)).astype(dtype))
            room = None if out is None else LAYOUTS[out](np.full((m, n), np.nan, dtype))
            made = blas.matmul(a, b, room)
            assert made.dtype == dtype
            assert (made == a @ b).all()  # whole numbers: no rounding
            assert room is None or made is room


def test_rows_that_share_their_memory(blas, rng):
    row = rng.integers(-9, 9, (1, 4)).astype("float32")
    same = np.broadcast_to(row, (3, 4))  # from one row to the next: no step at all
    assert (blas.matmul(same, np.eye(4, dtype="float32")) == same).all()
    assert (blas.matmul(np.eye(3, dtype="float32"), same) == same).all()
    windows = np.lib.stride_tricks.sliding_window_view(row[0], 2)  # a step of one entry, rows of two
    assert (blas.matmul(windows.T, np.eye(3, dtype="float32")) == windows.T).all()
    assert (blas.matmul(windows, np.eye(2, dtype="float32")) == windows).all()


def test_nothing_beside_the_result_is_written_to(blas, rng):
    wide = np.zeros((4, 9), "float32")
    blas.matmul(np.ones((4, 3), "float32"), np.ones((3, 5), "float32"), wide[:, 2:7])
    assert (wide[:, 2:7] == 3).all() and wide.sum() == 60


def test_products_by_a_vector_and_of_nothing(blas):
    a = np.arange(6, dtype="float32").reshape(2, 3)
    assert blas.matmul(a, np.ones(3, "float32")).tolist() == [3, 12]
    assert blas.matmul(a.T, np.ones(2, "float32")).tolist() == [3, 5, 7]
    assert (blas.matmul(a[:, :0], a[:0]) == np.zeros((2, 3))).all()
    assert blas.matmul(a[:0], a.T).shape == (0, 2)
    assert blas.matmul(a, a.T[:, :0]).shape == (2, 0)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.ones((2, 2, 2), "float32"), np.ones((2, 2, 2), "float32")),
        (np.ones((2, 2), "float32"), np.ones((2, 2), "float64")),
        (np.ones((2, 2), "float16"), np.ones((2, 2), "float16")),
        (np.ones(2, "float32"), np.ones((2, 2), "float32")),
    ],
)
def test_other_products_are_left_to_cupy(a, b, blas):
    with pytest.raises(NotImplementedError, match="CuPy's own"):
        blas.matmul(a, b)


def test_the_workspace_follows_the_stream(blas, cupy):
    a = np.eye(2, dtype="float32")
    for address in (cupy.stream.ptr, cupy.stream.ptr + 16, cupy.stream.ptr + 16, 0):
        cupy.stream.ptr = address
        blas.matmul(a, a)
        assert (blas.seen.stream or 0) == address
        assert blas.seen.workspace == blas._workspace.ctypes.data
        assert blas.seen.size == blas._workspace.nbytes == graphs.WORKSPACE
    assert blas.seen.products == 4


def test_tf32_if_cupy_uses_it(blas):
    for tf32, mode in ((False, 0), (True, 3), (True, 3), (False, 0)):
        blas.choose_precision(tf32)
        assert blas.seen.mode == mode


def test_what_cublas_refuses_is_an_error(blas):
    blas._handle = ctypes.c_void_p(1)
    with pytest.raises(RuntimeError, match=r"^cublasSetStream_v2 failed with status 1$"):
        blas.matmul(np.eye(2), np.eye(2))


# ------------------------------------------------------------------------------------ the recording


@pytest.fixture
def recorder(cupy, monkeypatch):
    """A Recorder whose calls of CuPy are written down."""
    log = []

    class Stream:
        ptr = 5

        def __init__(self, non_blocking):
            assert non_blocking

        def begin_capture(self):
            log.append("begin")

        def end_capture(self):
            log.append("end")
            if "broken" in log:
                raise RuntimeError("capture invalidated")
            return SimpleNamespace(launch=lambda stream: log.append(("launch", stream.ptr)))

        def __enter__(self):
            log.append("stream")

        def __exit__(self, *error):
            log.append("usual stream")

    @contextmanager
    def using_allocator(allocator):
        log.append(allocator)
        yield
        log.append("usual allocator")

    cuda = cupy.cuda
    cuda.Stream, cuda.using_allocator = Stream, using_allocator
    cuda.MemoryPool = lambda: SimpleNamespace(malloc="private")
    modes = {"float32": "plain"}
    cupy._core = SimpleNamespace(
        get_compute_type=modes.__getitem__, _routines_linalg=SimpleNamespace(COMPUTE_TYPE_TF32="tf32")
    )
    chosen = []
    blas = SimpleNamespace(matmul=lambda a, b, out: "ours", choose_precision=chosen.append)
    monkeypatch.setattr(graphs, "_cublas", lambda: None)
    monkeypatch.setattr(graphs, "Blas", lambda library: blas)
    made = graphs.Recorder()
    made.log, made.modes, made.chosen = log, modes, chosen
    return made


def test_a_recording_begins_and_ends(recorder, cupy):
    graph, result = recorder.record(lambda: recorder.log.append("work") or 7)
    assert result == 7
    assert recorder.log == [
        "private", "stream", "begin", "work", "end", "usual stream", "usual allocator"
    ]  # fmt: skip
    graph.replay()
    assert recorder.log[-1] == ("launch", cupy.stream.ptr)


def test_a_recording_that_fails_is_ended(recorder):
    def work():
        recorder.log.append("broken")
        raise NotImplementedError("calling cuBLAS")

    with pytest.raises(NotImplementedError, match="calling cuBLAS"):
        recorder.record(work)
    assert recorder.log[2:] == ["begin", "broken", "end", "usual stream"]


def test_products_inside_are_ours(recorder):
    a = StrictNumPy.asarray(np.eye(2))
    with recorder.products():
        assert linear.matmul(a, a) == "ours"
        assert (linear.matmul(np.eye(2), np.eye(2)) == np.eye(2)).all()  # NumPy's are NumPy's
        recorder.modes["float32"] = "tf32"
    assert (linear.matmul(a, a).view(np.ndarray) == np.eye(2)).all()
    with recorder.products():
        pass
    assert recorder.chosen == [False, True]


# --------------------------------------------------------------------- which products go through it


@pytest.mark.parametrize("penalty", ["none", "gp", "r1"])
@pytest.mark.parametrize("kind", ["mlp", "convolutions"])
def test_all_products_of_linear_layers_and_convolutions(kind, penalty):
    """CuPy would refuse any other product while a step is recorded."""
    g, d = mlp() if kind == "mlp" else convolutions(False)
    if kind == "convolutions":
        d = type(d)(*[layer for layer in d if not getattr(layer, "normalises", False)])
    g.to("strict")
    d.to("strict")
    run = small_trainer(None, small_game("wasserstein", penalty, (g, InstanceNoise(d, 0.1, rng=0))), images())
    ours = []

    def matmul(a, b, out=None):
        ours.append(a.shape)
        return StrictNumPy().matmul(a, b, out=out)

    token = linear.stand_in.set(matmul)
    try:
        with counting() as counts:
            run.train_step()
    finally:
        linear.stand_in.reset(token)
    assert len(ours) == counts.launched["matmul"] > 5
    assert not {"einsum", "dot", "tensordot", "inner"} & counts.launched.keys()
