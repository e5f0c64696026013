"""Which way round NumPy multiplies quicker, A B or (Bᵀ Aᵀ)ᵀ: `python benchmarks/products.py`

For the products of a linear layer, X Wᵀ with a batch of N rows. This is what decides kernels/linear.py.
"""

from __future__ import annotations

import timeit

import numpy as np

SIZES = [  # N, in, out
    (1, 784, 256),
    (16, 256, 256),
    (100, 100, 256),
    (100, 784, 256),
    (100, 256, 784),
    (100, 1024, 784),
    (256, 256, 256),
    (512, 784, 256),
]


def microseconds(x: np.ndarray, w: np.ndarray, code: str) -> float:
    runs = max(5, int(1e9 / x.size / w.shape[0]))
    return min(timeit.repeat(code, globals={"x": x, "w": w}, number=runs, repeat=9)) / runs * 1e6


def main() -> None:
    rng = np.random.default_rng(0)
    print(f"{'N':>5} {'in':>5} {'out':>5} {'x @ w.T':>10} {'(w @ x.T).T':>12}  ratio   (us, float32)")
    for n, n_in, n_out in SIZES:
        x, w = rng.random((n, n_in), "float32"), rng.random((n_out, n_in), "float32")
        one, other = microseconds(x, w, "x @ w.T"), microseconds(x, w, "(w @ x.T).T")
        print(f"{n:5} {n_in:5} {n_out:5} {one:10.1f} {other:12.1f}  {other / one:5.2f}")


if __name__ == "__main__":
    main()
