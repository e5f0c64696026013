"""How a user's typed code sees minigan. Never run: mypy reads it (see pyproject.toml)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from typing_extensions import assert_type

    import minigan as mg
    from minigan import Tensor, grad, no_grad, record

    x = Tensor([1.0, 2.0], requires_grad=True, dtype="float32", backend="numpy", name="x")
    assert_type(x * 2.0 + 1, Tensor)
    assert_type(2.0 / x - np.ones(2), Tensor)
    assert_type(x @ x, Tensor)
    assert_type(x[0], Tensor)
    assert_type(x.T, Tensor)
    assert_type(x.reshape(2, 1).sum(axis=0, keepdims=True), Tensor)
    assert_type(grad((x * x).sum(), x, create_graph=True), Tensor)
    assert_type(grad((x * x).sum(), [x, x]), list[Tensor])
    assert_type(x.grad, Tensor | None)
    assert_type(x.requires_grad, bool)
    assert_type(float(x.sum()), float)
    assert_type(mg.conv2d(x, x, stride=(1, 2), padding=1), Tensor)
    assert_type(mg.batch_norm(x, eps=1e-3), Tensor)
    assert_type(mg.split(x, 2), list[Tensor])
    assert_type(mg.backend.available(), list[str])
    with no_grad():
        assert_type(mg.leaky_relu(x, 0.2), Tensor)

    def double(t: Tensor) -> Tensor:
        return record("double", t.data * 2, (t, lambda g: g * 2))
