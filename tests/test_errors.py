"""Bad input gets an error that a learner understands: the op, the shapes, what to do."""

import numpy as np
import pytest

import minigan as mg
import minigan.testing.strict
from minigan import Tensor


def ones(*shape):
    return Tensor(np.ones(shape), requires_grad=True)


X = ones(2, 3, 8, 8)
CASES = {
    # shapes that do not broadcast
    "add": (lambda: ones(3) + ones(4), r"add: shapes \(3,\) and \(4,\) do not broadcast"),
    "mul": (lambda: ones(2, 3) * np.ones((3, 2)), r"mul: shapes \(2, 3\) and \(3, 2\) do not broadcast"),
    "where": (lambda: mg.where(np.ones(3) > 0, ones(4), 0.0), r"where: shapes \(3,\) and \(4,\)"),
    "maximum": (lambda: mg.maximum(ones(3), ones(4)), r"maximum: shapes \(3,\) and \(4,\)"),
    "broadcast_to": (lambda: mg.broadcast_to(ones(3), (3, 2)), r"broadcast_to: shape \(3,\) does not fill \(3, 2\)"),
    "sum_to": (lambda: mg.sum_to(ones(3, 2), (3,)), r"sum_to: shape \(3,\) does not broadcast to \(3, 2\)"),
    # products
    "matmul": (lambda: ones(2, 3) @ ones(4, 5), r"matmul: shapes \(2, 3\) and \(4, 5\); the last axis.*\(3\).*\(4\)"),
    "matmul batch": (lambda: ones(2, 3, 3) @ ones(4, 3, 3), r"matmul \(batch axes\): shapes \(2,\) and \(4,\)"),
    "matmul 0-d": (lambda: ones(2, 3) @ ones(), r"matmul: shapes \(2, 3\) and \(\); to scale.*use \*"),
    "matmul number": (lambda: ones(2, 3) @ 2.0, r"matmul: shapes \(2, 3\) and \(\); to scale"),
    "linear": (lambda: mg.linear(ones(5, 3), ones(4, 2)), r"linear: input of shape \(5, 3\) and weight of shape \(4, 2\)"),
    "linear bias": (lambda: mg.linear(ones(5, 3), ones(4, 3), ones(3)), r"linear: bias of shape \(3,\)"),
    "einsum": (lambda: mg.einsum("ij,jk->ik", ones(2, 3), ones(4, 5)), r"einsum: axis 'j'.*length 3 and 4"),
    "einsum rank": (lambda: mg.einsum("ijk,jk->i", ones(2, 3), ones(4, 5)), r"einsum: 'ijk' names 3 axes.*\(2, 3\)"),
    "einsum diagonal": (lambda: mg.einsum("ii,ij->j", ones(2, 2), ones(2, 2)), r"einsum: 'ii' repeats a letter"),
    "einsum text": (lambda: mg.einsum("ij->i", ones(2, 2), ones(2, 2)), r"einsum: 'ij->i' should read like"),
    "einsum ellipsis": (lambda: mg.einsum("...i,ij", ones(2, 2), ones(2, 2)), r"einsum: '...i,ij' should read like"),
    "einsum result": (lambda: mg.einsum("ij,jk->iz", ones(2, 2), ones(2, 2)), r"einsum: each letter of the result 'iz'"),
    # convolution
    "channels": (lambda: mg.conv2d(X, ones(4, 2, 3, 3)), r"conv2d: input of shape \(2, 3, 8, 8\) has 3 channels.*works on 2"),
    "groups": (lambda: mg.conv2d(X, ones(4, 1, 3, 3), groups=3), r"conv2d: groups=3 must divide"),
    "kernel": (lambda: mg.conv2d(X, ones(4, 3, 9, 9)), r"conv2d: a kernel of size \(9, 9\).*\(8, 8\) with padding \(0, 0\)"),
    "dilated": (lambda: mg.conv2d(X, ones(4, 3, 3, 3), dilation=4), r"conv2d: a kernel of size \(3, 3\) with dilation \(4, 4\)"),
    "stride": (lambda: mg.conv2d(X, ones(4, 3, 3, 3), stride=-1), r"conv2d: stride must be 1 or more, not -1"),
    "stride 0": (lambda: mg.conv2d(X, ones(4, 3, 3, 3), stride=0), r"conv2d: stride must be 1 or more, not 0"),
    "padding": (lambda: mg.conv2d(X, ones(4, 3, 3, 3), padding=(0, -1)), r"conv2d: padding must be 0 or more, not -1"),
    "padding text": (lambda: mg.conv2d(X, ones(4, 3, 3, 3), padding="same"), r"conv2d: padding must be a whole number, not 'same'"),
    "rank": (lambda: mg.conv2d(ones(3, 8, 8), ones(4, 3, 3, 3)), r"conv2d: a Tensor of shape \(3, 8, 8\).*\(N, C, H, W\)"),
    "conv bias": (lambda: mg.conv2d(X, ones(4, 3, 3, 3), ones(3)), r"conv2d: bias of shape \(3,\) for 4 output channels"),
    "conv1d": (lambda: mg.conv1d(X, ones(4, 3, 3)), r"conv1d: shapes \(2, 3, 8, 8\) and \(4, 3, 3\).*three axes"),
    "conv1d channels": (lambda: mg.conv1d(ones(2, 3, 8), ones(4, 2, 3)), r"conv1d: input of shape \(2, 3, 1, 8\) has 3 channels"),
    "stride float": (lambda: mg.conv2d(X, ones(4, 3, 3, 3), stride=1.0), r"conv2d: stride must be a whole number, not 1.0"),
    "transposed": (lambda: mg.conv_transpose2d(X, ones(4, 2, 3, 3)), r"conv_transpose2d: input of shape .*has 3 channels.*works on 4"),
    "output_padding": (lambda: mg.conv_transpose2d(X, ones(3, 2, 3, 3), stride=2, output_padding=2), r"conv_transpose2d: output_padding \(2, 2\) must be smaller"),
    "all padding": (lambda: mg.conv_transpose2d(X, ones(3, 2, 3, 3), padding=5), r"conv_transpose2d: padding \(5, 5\) leaves nothing"),
    "conv2d_weight": (lambda: mg.conv2d_weight(X, ones(2, 4, 8, 8), 3), r"conv2d_weight: .*makes shape \(2, 4, 6, 6\), not \(2, 4, 8, 8\)"),
    "max_pool": (lambda: mg.max_pool(X, 9), r"max_pool: a kernel of size \(9, 9\)"),
    "avg_pool": (lambda: mg.avg_pool(X, 2, padding=2), r"avg_pool: padding \(2, 2\) is more than half the kernel"),
    "sum_pool": (lambda: mg.sum_pool(X, 3), r"sum_pool: an image of size \(8, 8\) does not divide into blocks of \(3, 3\)"),
    "upsample": (lambda: mg.upsample(X, 0), r"upsample: factor must be 1 or more, not 0"),
    "fold": (lambda: mg.fold(ones(1, 1, 2, 2, 3, 3), 5), r"fold: windows of shape .* are not those of an image of size \(5, 5\)"),
    # normalisation
    "one value": (lambda: mg.batch_norm(ones(1, 3)), r"batch_norm: input of shape \(1, 3\) has 1 values per channel"),
    "no batch": (lambda: mg.batch_norm(ones(0, 3)), r"batch_norm: input of shape \(0, 3\) has 0 values per channel"),
    "batch_norm rank": (lambda: mg.batch_norm(ones(3)), r"batch_norm: input of shape \(3,\)"),
    "batch_norm weight": (lambda: mg.batch_norm(X, ones(2)), r"batch_norm: weight of shape \(2,\) for 3 channels"),
    "dropout": (lambda: mg.dropout(X, 1.0, np.random.default_rng(0)), r"dropout: rate=1.0 must be 0 or more and less"),
    "dropout rng": (lambda: mg.dropout(X, 0.5, 0), r"dropout: rng=0; give a generator"),
    "dropout ints": (lambda: mg.dropout(Tensor([1, 2]), 0.5, np.random.default_rng(0)), r"dropout: a Tensor of dtype int64"),
    "eps": (lambda: mg.batch_norm(X, eps=-1.0), r"batch_norm: eps=-1.0 must not be negative"),
    # settings to which no gradient flows
    "slope": (lambda: mg.leaky_relu(X, Tensor(0.2, requires_grad=True)), r"leaky_relu: slope must be a plain number, not Tensor"),
    "alpha": (lambda: mg.elu(X, Tensor(0.2)), r"elu: alpha must be a plain number"),
    "eps Tensor": (lambda: mg.batch_norm(X, eps=Tensor(0.2)), r"batch_norm: eps must be a plain number"),
    "bound": (lambda: mg.clip(X, Tensor(0.2)), r"clip: a bound must be a plain number"),
    "bounds": (lambda: mg.clip(X, np.zeros(8)), r"clip: a bound must be a plain number"),
    # shapes
    "reshape": (lambda: ones(2, 3).reshape(4, -1), r"reshape: 6 entries of shape \(2, 3\) do not fit into shape \(4, -1\)"),
    "transpose": (lambda: ones(2, 3).transpose(0, 0), r"transpose: axis \(0, 0\) names the same axis twice"),
    "transpose count": (lambda: ones(2, 3).transpose(0), r"transpose: axes \(0,\) for a Tensor of shape \(2, 3\)"),
    "mT": (lambda: ones(3).mT, r"mT: a Tensor of shape \(3,\) is no matrix"),
    "axis": (lambda: ones(2, 3).sum(axis=2), r"sum: axis 2 of a Tensor with 2 axes; it has -2 to 1"),
    "axis twice": (lambda: ones(2, 3).mean(axis=(1, -1)), r"mean: axis \(1, -1\) names the same axis twice"),
    "concat": (lambda: mg.concat([ones(2, 3), ones(3, 2)]), r"concat: shapes \[\(2, 3\), \(3, 2\)\] must be equal except along axis 0"),
    "concat nothing": (lambda: mg.concat([]), r"concat: needs at least one Tensor"),
    "stack": (lambda: mg.stack([ones(2), ones(3)]), r"stack: shapes \[\(2,\), \(3,\)\] must be equal"),
    "split": (lambda: mg.split(ones(5), 2), r"split: axis 0 of shape \(5,\) does not divide into 2 parts"),
    "pad": (lambda: mg.pad(ones(3), -1), r"pad: widths \(\(-1, -1\),\).*neither negative"),
    "pad axes": (lambda: mg.pad(ones(2, 3), ((1, 1),)), r"pad: widths \(\(1, 1\),\) for a Tensor of shape \(2, 3\)"),
    "pad value": (lambda: mg.pad(Tensor([1, 2]), 1, 0.5), r"pad: value=0.5 is not a number of dtype int64"),
    "pad float": (lambda: mg.pad(ones(2), 1.5), r"pad: a width must be a whole number, not 1.5"),
    "pad list": (lambda: mg.pad(ones(2), [1, 1]), r"pad: widths \[1, 1\]; give \(before, after\)"),
    "max_pool ints": (lambda: mg.max_pool(Tensor(np.ones((1, 1, 2, 2), int)), 2, padding=1), r"pad: value=-inf is not"),
    "astype": (lambda: ones(2).astype("complex64"), r"astype: a Tensor holds real numbers.*not complex64"),
    "axis float": (lambda: ones(2).sum(axis=1.0), r"sum: an axis must be a whole number, not 1.0"),
    "axis bool": (lambda: ones(2).sum(axis=True), r"sum: an axis must be a whole number, not True"),
    "axis 0-d": (lambda: ones().sum(axis=0), r"sum: axis 0 of a Tensor with shape \(\), which has no axes"),
    "axes": (lambda: mg.softmax(ones(2, 3), axis=(0, 1)), r"softmax: axis=\(0, 1\); this op works along one axis"),
    "crop": (lambda: mg.crop(ones(3), 2), r"crop: shape \(3,\) is too small to lose"),
    "index": (lambda: ones(2, 3)[5], r"getitem: index 5 is out of bounds.*shape \(2, 3\)"),
    "too many": (lambda: ones(2, 3)[0, 0, 0], r"getitem: too many indices.*shape \(2, 3\)"),
    "float index": (lambda: ones(3)[[0.5]], r"index of dtype float64: positions are whole numbers"),
    "text index": (lambda: ones(3)["a"], r"an index of type str"),
    "take": (lambda: mg.take(ones(3), [3]), r"take: index 3 is out of bounds"),
    "take mask": (lambda: mg.take(ones(3), [True, False, True]), r"take: the indices are booleans"),
    "scatter_add": (lambda: mg.scatter_add(ones(2), [0, 1, 2], (3,)), r"scatter_add: the? ?.*index takes shape \(3,\)"),
    # nothing to reduce
    "max": (lambda: ones(0, 3).max(axis=0), r"max: no entries along axes \(0,\) of shape \(0, 3\)"),
    "mean": (lambda: ones(0).mean(), r"mean: nothing to average over axes \(0,\) of shape \(0,\)"),
    "var": (lambda: ones(1).var(ddof=1), r"var: 1 entries with ddof=1"),
    "logsumexp": (lambda: mg.logsumexp(ones(0)), r"logsumexp: no entries"),
    "clip": (lambda: mg.clip(ones(2), 1, 0), r"clip: low=1 is above high=0"),
    # what is no Tensor
    "None": (lambda: ones(2) + None, r"add: cannot make a Tensor of NoneType"),
    "text": (lambda: mg.exp("a"), r"exp: cannot make a Tensor of str"),
    "complex": (lambda: ones(2) * 1j, r"mul: cannot make a Tensor of complex"),
    "grad of a number": (lambda: mg.grad(3.0, X), r"grad: y is a float, not a Tensor"),
    "grad by a text": (lambda: mg.grad(X.sum(), "ab"), r"grad: xs\[0\] is a str, not a Tensor"),
    # backends
    "two backends": (
        lambda: Tensor([1.0]) * Tensor([1.0], backend="strict"),
        r"mul: one operand is on backend 'numpy' and another on 'strict'; move one with \.to\('numpy'\)",
    ),
    "array on another": (
        lambda: mg.linear(Tensor([[1.0]], backend="strict"), np.ones((1, 1))),
        r"linear: one operand is on backend 'strict' and another on 'numpy'",
    ),
    "gradient on another": (
        lambda: ones(2).copy().backward(Tensor([1.0, 1.0], backend="strict")),
        r"backward: one operand is on backend 'numpy' and another on 'strict'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_message_names_the_op_and_the_shapes(case):
    wrong, message = CASES[case]
    with pytest.raises((ValueError, TypeError, IndexError), match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)
