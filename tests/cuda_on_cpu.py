"""gpu/kernels.py and cuda.cu without a GPU: g++ compiles the kernels, and this file plays CuPy.

Its arrays are those of the backend "strict". Beyond running kernels it watches them:

    new memory       is full of NaN, and has a fence around it that no kernel may step on
    each argument    must be of the type that the kernel declares
    order            threads and blocks take turns from the first to the last, or backwards, or shuffled
    __syncthreads    no thread may have ended while others wait
    atomicInc        there must be a __threadfence before and after it

What it cannot show is time, and whether a real driver takes all this.
"""

import ctypes
import importlib.util
import re
import subprocess
import sys
import tempfile
import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np

import minigan.gpu
from minigan.testing.strict import StrictArray, StrictNumPy

HEADER = Path(__file__).with_name("cuda_on_cpu.h")
SOURCE = Path(minigan.gpu.__file__).with_name("kernels.cu")
FLAGS = ["-std=c++11", "-O0", "-Wall", "-Werror", "-U_FORTIFY_SOURCE", "-shared", "-fPIC"]
FENCE = 64  # bytes before and behind each new array
FILL = 0xFF  # of floats, NaN; of int64, -1
WRONG = {1: "not all threads wait", 2: "no __threadfence", 3: "too much is __shared__"}


class Kernels:
    """cuda.cu for the CPU: what cupy.RawModule is for a GPU."""

    def __init__(self, code: str, options: tuple[str, ...], cupy: "Cupy"):
        self.cupy = cupy
        names = re.findall(r'extern "C" __global__ void (?:__launch_bounds__\(\w+\) )?(\w+)\(', code)
        assert len(names) == code.count("__global__")
        played = "\n".join(f"PLAYED({name})" for name in names)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "kernels.cpp")
            path.write_text(f'#include "{HEADER}"\n{code}\n{played}\n')
            command = ["g++", *FLAGS, *options]
            done = subprocess.run(
                [*command, str(path), "-o", f"{path}.so"], capture_output=True, text=True, check=False
            )
            if done.returncode != 0:  # no AssertionError: no mutant is caught by this
                raise RuntimeError(done.stderr)
            self.library = ctypes.CDLL(f"{path}.so")

    def get_function(self, name: str):
        play = getattr(self.library, f"play_{name}")
        letters = getattr(self.library, f"letters_{name}")
        letters.restype = ctypes.c_char_p
        wanted = letters().decode().split()

        def start(grid, block, args):
            assert len(args) == len(wanted), f"{name} takes {len(wanted)} arguments, not {len(args)}"
            assert 0 < np.prod(block) <= 1024
            shape = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])
            assert all(shape)
            assert max(shape[1:3]) < 1 << 16
            values = [_argument(a, w, name) for a, w in zip(args, wanted, strict=True)]
            pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
            wrong = play(shape, pointers, self.cupy.order)
            assert wrong == 0, f"{name}: {WRONG[wrong]}"
            self.cupy.launches.append(name)
            self.cupy.look_at_fences(name)

        return start


def _argument(value, wanted: str, name: str):
    """A kernel's argument as C has it, by the rules of CuPy; refused if the kernel wants another type."""
    kind = type(value).__name__
    refused = f"{name}: {kind} where the kernel wants {wanted}"
    if value is None:
        assert wanted[0] == "P", refused
        return ctypes.c_void_p(0)
    if isinstance(value, StrictArray):
        assert wanted[0] == "P", refused
        assert wanted[1] in (value.dtype.char.replace("l", "q"), "I", "B"), f"{refused}: {value.dtype}"
        return ctypes.c_void_p(value.ctypes.data)
    if isinstance(value, np.ndarray):
        assert value.size == 1 and wanted == f"s{value.nbytes}", f"{refused}: {value.nbytes} bytes"
        return (ctypes.c_char * value.nbytes).from_buffer_copy(value)
    if type(value) is int:
        assert wanted in ("q", "Q"), refused
        return (ctypes.c_longlong if wanted == "q" else ctypes.c_ulonglong)(value)
    assert type(value) is float and wanted == "d", refused
    return ctypes.c_double(value)


class Stream:
    """A stream, as far as it has a number. What it has to do is done when somebody waits for it."""

    made = 0

    def __init__(self, non_blocking):
        assert non_blocking
        Stream.made += 1
        self.ptr, self.to_do = Stream.made, []

    def synchronize(self):
        while self.to_do:
            self.to_do.pop(0)()


class Memory(np.ndarray):
    """Bytes from CUDA itself, not from the pool of CuPy; and a pointer to them."""

    def memset_async(self, value, size, stream):
        stream.to_do.append(lambda: self[:size].fill(value))


class Cupy(StrictNumPy):
    """The functions of the module `cupy` that cuda.py calls.

    launches: the names of the kernels started so far. change: what to do to the source first (a mutant).
    order: see cuda_on_cpu.h. device, stream: the current ones; a test may change them. memories: what came
    from CUDA itself.
    """

    def __init__(self, change=lambda code: code):
        self.change, self.launches, self.order, self.fenced = change, [], 0, []
        self.device, self.stream, self.memories = 0, SimpleNamespace(ptr=0), []
        self.cuda = SimpleNamespace(
            runtime=SimpleNamespace(getDevice=lambda: self.device),
            get_current_stream=lambda: self.stream,
            Stream=Stream,
            Memory=self.memory,
            MemoryPointer=lambda memory, offset: memory[offset:],
        )

    def RawModule(self, *, code, options):
        assert code.isascii()  # CuPy writes it to a file, in the encoding of the user
        return Kernels(self.change(code), options, self)

    def empty(self, shape, dtype=float):
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = int(np.prod(shape, dtype=int)) * np.dtype(dtype).itemsize
        memory = np.full(size + 2 * FENCE, FILL, np.uint8)
        self.fenced.append(weakref.ref(memory))
        return memory[FENCE : FENCE + size].view(dtype).reshape(shape).view(StrictArray)

    def memory(self, size):
        self.memories.append(self.empty(size, np.uint8).view(Memory))
        return self.memories[-1]

    def empty_like(self, prototype, dtype=None, shape=None):
        like = np.empty_like(prototype.view(np.ndarray), dtype=dtype, shape=shape)
        slowest_first = sorted(range(like.ndim), key=lambda axis: -like.strides[axis])
        lying = self.empty([like.shape[axis] for axis in slowest_first], like.dtype)
        return lying.transpose(np.argsort(slowest_first).tolist())

    def ascontiguousarray(self, array, dtype=None):
        """As in CuPy: the array itself, if it is so already."""
        dtype = array.dtype if dtype is None else np.dtype(dtype)
        if array.flags.c_contiguous and array.dtype == dtype:
            return array
        made = self.empty(array.shape, dtype)
        made[...] = array
        return made

    def look_at_fences(self, name):
        self.fenced = [memory for memory in self.fenced if memory() is not None]
        for memory in self.fenced:
            whole = memory()
            fences = whole[:FENCE], whole[len(whole) - FENCE :]
            assert all((fence == FILL).all() for fence in fences), f"{name} wrote beyond an array"


def load(cupy: Cupy):
    """A copy of gpu/kernels.py that believes in this CuPy."""
    before = sys.modules.get("cupy")
    sys.modules["cupy"] = cupy
    try:
        path = SOURCE.with_name("kernels.py")
        spec = importlib.util.spec_from_file_location("minigan.gpu.cuda_on_cpu", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        del sys.modules["cupy"]
        if before is not None:
            sys.modules["cupy"] = before
    module._address = lambda array: array.ctypes.data
    return module
