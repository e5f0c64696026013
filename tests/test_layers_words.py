"""What layers say: in `repr`, and when they are used wrongly. One case a line."""
# ruff: noqa: E501

import numpy as np
import pytest

from minigan import Tensor, nn

REPRS = {
    "Embedding(10, 128)": nn.Embedding(10, 128, rng=0),
    "Maxout(4, 3, pieces=5)": nn.Maxout(4, 3, 5, rng=0),
    "BatchNorm1d(3, eps=0.1, momentum=None, affine=False)": nn.BatchNorm1d(3, 0.1, None, False),
    "BatchNorm2d(3, eps=1e-05, momentum=0.1, track_running_stats=False)": (
        nn.BatchNorm2d(3, track_running_stats=False)
    ),
    "ConditionalBatchNorm(3, num_classes=10, eps=1e-05, momentum=0.1)": nn.ConditionalBatchNorm(3, 10),
    "LayerNorm((3, 4), eps=1e-05, bias=False)": nn.LayerNorm((3, 4), bias=False),
    "LayerNorm((3,), eps=1e-05, elementwise_affine=False)": nn.LayerNorm(3, elementwise_affine=False),
    "GroupNorm(2, 4, eps=1e-05, affine=False)": nn.GroupNorm(2, 4, affine=False),
    "InstanceNorm(4, eps=1e-05, affine=True)": nn.InstanceNorm(4, affine=True),
    "PixelNorm(eps=1e-08)": nn.PixelNorm(),
    "ReLU()": nn.ReLU(),
    "LeakyReLU(negative_slope=0.01)": nn.LeakyReLU(),
    "ELU(alpha=2.0)": nn.ELU(2.0),
    "Softmax(dim=1)": nn.Softmax(1),
    "Flatten()": nn.Flatten(),
    "Flatten(start_dim=2, end_dim=3)": nn.Flatten(2, 3),
    "Reshape(1, 28, 28)": nn.Reshape(1, 28, 28),
    "Upsample(scale_factor=2)": nn.Upsample(2),
    "MaxPool(kernel_size=2, stride=2, padding=0)": nn.MaxPool(2),
    "AvgPool(kernel_size=3, stride=2, padding=1)": nn.AvgPool(3, 2, 1),
    "Dropout(p=0.5)": nn.Dropout(rng=0),
}


@pytest.mark.parametrize("expected", REPRS)
def test_repr(expected):
    assert repr(REPRS[expected]) == expected


def zeros(*shape):
    return Tensor(np.zeros(shape, "float32"))


WRONG = {
    # embeddings and labels
    "index too large": (lambda: nn.Embedding(3, 2, rng=0)([0, 3]), r"^Embedding: indices from 0 to 3; with 3 rows.*from 0 to 2"),
    "negative index": (lambda: nn.Embedding(3, 2, rng=0)([-1]), r"^Embedding: indices from -1 to -1; with 3 rows"),
    "index float": (lambda: nn.Embedding(3, 2, rng=0)([1.0]), r"^Embedding: indices of dtype float32; they must be whole numbers"),
    "index bool": (lambda: nn.Embedding(3, 2, rng=0)([True]), r"^Embedding: indices of dtype bool"),
    "label": (lambda: nn.ConditionalBatchNorm(3, 2)(zeros(4, 3), [0, 1, 2, 0]), r"^ConditionalBatchNorm: labels from 0 to 2; with 2 rows"),
    "one-hot labels": (lambda: nn.ConditionalBatchNorm(3, 2)(zeros(4, 3), np.eye(4, 2)), r"^ConditionalBatchNorm: labels of dtype float64"),
    "too few labels": (lambda: nn.ConditionalBatchNorm(3, 2)(zeros(4, 3), [0, 1]), r"^ConditionalBatchNorm: labels of shape \(2,\) for input of shape \(4, 3\); .*each of the 4"),
    "pieces": (lambda: nn.Maxout(3, 2, 0, rng=0), r"^Maxout: pieces must be 1 or more, not 0"),
    # normalisation
    "batch of one": (lambda: nn.BatchNorm1d(3)(zeros(1, 3)), r"^BatchNorm1d: input of shape \(1, 3\) has 1 values per channel.*larger batch, or call eval"),
    "one pixel": (lambda: nn.BatchNorm2d(3)(zeros(1, 3, 1, 1)), r"^BatchNorm2d: input of shape \(1, 3, 1, 1\) has 1 values"),
    "one example": (lambda: nn.ConditionalBatchNorm(3, 2)(zeros(1, 3), [0]), r"^ConditionalBatchNorm: input of shape \(1, 3\) has 1 values"),
    "no example": (lambda: nn.BatchNorm1d(3)(zeros(0, 3)), r"^BatchNorm1d: input of shape \(0, 3\) has 0 values per channel"),
    "untracked": (lambda: nn.BatchNorm1d(3, track_running_stats=False).eval()(zeros(1, 3)), r"^BatchNorm1d: .* and no variance; give a larger batch$"),
    "channels": (lambda: nn.BatchNorm2d(3)(zeros(2, 4, 2, 2)), r"^BatchNorm2d: input of shape \(2, 4, 2, 2\) has 4 channels, not 3"),
    "channels in evaluation": (lambda: nn.BatchNorm1d(3).eval()(zeros(2, 4)), r"^BatchNorm1d: input of shape \(2, 4\) has 4 channels, not 3"),
    "2d rank": (lambda: nn.BatchNorm2d(3)(zeros(2, 3)), r"^BatchNorm2d: input of shape \(2, 3\); it must have axes \(N, C, H, W\)"),
    "1d rank": (lambda: nn.BatchNorm1d(3)(zeros(2, 3, 1, 1)), r"^BatchNorm1d: input of shape \(2, 3, 1, 1\).*\(N, C\) or \(N, C, L\)"),
    "conditional rank": (lambda: nn.ConditionalBatchNorm(3, 2)(zeros(3), [0]), r"^ConditionalBatchNorm: input of shape \(3,\); it must have axes \(N, C, \.\.\.\)"),
    "features": (lambda: nn.BatchNorm2d(0), r"^BatchNorm2d: num_features must be 1 or more, not 0"),
    "momentum": (lambda: nn.BatchNorm2d(3, momentum=Tensor(0.1)), r"^BatchNorm2d: momentum must be a plain number"),
    "classes": (lambda: nn.ConditionalBatchNorm(3, 0), r"^ConditionalBatchNorm: num_classes must be 1 or more"),
    "layer": (lambda: nn.LayerNorm((3, 4))(zeros(2, 4, 3)), r"^LayerNorm: input of shape \(2, 4, 3\) does not end in \(3, 4\)"),
    "layer rank": (lambda: nn.LayerNorm((3, 4))(zeros(4)), r"^LayerNorm: input of shape \(4,\) does not end in \(3, 4\)"),
    "layer of one": (lambda: nn.LayerNorm(1)(zeros(2, 1)), r"^LayerNorm: input of shape \(2, 1\) leaves 1 values"),
    "groups": (lambda: nn.GroupNorm(2, 3), r"^GroupNorm: 3 channels do not divide into 2 groups"),
    "group channels": (lambda: nn.GroupNorm(2, 4)(zeros(2, 3, 5)), r"^GroupNorm: input of shape \(2, 3, 5\) has 3 channels, not 4"),
    "group of one": (lambda: nn.GroupNorm(4, 4)(zeros(2, 4)), r"^GroupNorm: input of shape \(2, 4\) leaves 1 values"),
    "instance of one": (lambda: nn.InstanceNorm(4)(zeros(2, 4, 1, 1)), r"^InstanceNorm: input of shape \(2, 4, 1, 1\) leaves 1 values"),
    "instance channels": (lambda: nn.InstanceNorm(4)(zeros(2, 3, 5)), r"^InstanceNorm: input of shape \(2, 3, 5\) has 3 channels, not 4"),
    "pixel rank": (lambda: nn.PixelNorm()(zeros(3)), r"^PixelNorm: input of shape \(3,\); it must have axes"),
    "another backend": (lambda: nn.BatchNorm1d(3)(Tensor(np.zeros((2, 3)), backend="strict")), r"^BatchNorm1d: one operand is on backend 'numpy' and another on 'strict'"),
    # shapes
    "flatten": (lambda: nn.Flatten(2, 1)(zeros(2, 3, 4)), r"^Flatten: start_dim=2 comes after end_dim=1"),
    "flatten rank": (lambda: nn.Flatten()(zeros(3)), r"^Flatten: axis 1 of a Tensor with 1 axes"),
    "reshape": (lambda: nn.Reshape(5)(zeros(2, 3)), r"^reshape: 6 entries of shape \(2, 3\) do not fit into shape \(2, 5\)"),
    "reshape a number": (lambda: nn.Reshape(1)(zeros()), r"^Reshape: a single number has no batch axis"),
    "upsample": (lambda: nn.Upsample(2)(zeros(2, 3)), r"^upsample: a Tensor of shape \(2, 3\)"),
    "pool": (lambda: nn.MaxPool(3)(zeros(1, 1, 2, 2)), r"^max_pool: a kernel of size \(3, 3\)"),
    "p": (lambda: nn.Dropout(1.0, rng=0), r"^Dropout: p=1.0 must be 0 or more and less than 1"),
    "p Tensor": (lambda: nn.Dropout(Tensor(0.5), rng=0), r"^Dropout: p must be a plain number"),
    # settings
    "no features": (lambda: nn.Linear(0, 4, rng=0), r"^Linear: in_features must be 1 or more, not 0"),
    "features float": (lambda: nn.Linear(3.0, 4, rng=0), r"^Linear: in_features must be a whole number, not 3.0"),
    "stride": (lambda: nn.Conv2d(3, 4, 3, stride=0, rng=0), r"^Conv2d: stride must be 1 or more, not 0"),
    "padding": (lambda: nn.Conv2d(3, 4, 3, padding="same", rng=0), r"^Conv2d: padding must be a whole number, not 'same'"),
    "eps": (lambda: nn.PixelNorm(-1.0), r"^PixelNorm: eps=-1.0 must not be negative"),
    "hidden": (lambda: nn.Lambda(nn.ReLU()), r"^Lambda: ReLU\(\) is a Module already"),
    "frozen list": (lambda: nn.frozen([nn.ReLU()]).__enter__(), r"^frozen: .* is a list, not a Module"),
    "precision": (lambda: nn.ReLU().to("float64"), r"^to: 'float64' is a precision, .* to\(dtype='float64'\)"),
    # random numbers
    **{f"rng of {name}": (lambda make=make: make(rng=None), rf"^{name}: rng=None; give a generator, .*or a seed$") for name, make in {
        "Linear": lambda rng: nn.Linear(2, 3, rng=rng),
        "Maxout": lambda rng: nn.Maxout(2, 3, 2, rng=rng),
        "Embedding": lambda rng: nn.Embedding(2, 3, rng=rng),
        "Conv2d": lambda rng: nn.Conv2d(2, 3, 3, rng=rng),
        "Dropout": lambda rng: nn.Dropout(rng=rng),
    }.items()},
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_the_message_names_the_layer_and_the_shapes(case):
    wrong, message = WRONG[case]
    with pytest.raises((ValueError, TypeError, IndexError), match=message) as caught:
        wrong()
    assert "\n" not in str(caught.value)
