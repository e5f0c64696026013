"""Whole networks beside the same networks in PyTorch: outputs, gradients, buffers, step after step.

Each pair of networks has one state, loaded by name. Both then train side by side: three forward passes in
training mode, each with a step of gradient descent, and one in eval mode. Single layers are compared in
test_nn_torch.py.
"""

import numpy as np
import pytest

from minigan import Tensor, grad, nn

torch = pytest.importorskip("torch", reason="compares with PyTorch, which is not installed (extra `bench`)")
pytestmark = pytest.mark.torch

T = torch.nn
RTOL = 1e-10


def spectral(layer):
    """Spectral normalisation, ours or PyTorch's. The state that is loaded later says where u and v begin."""
    if isinstance(layer, nn.Module):
        return nn.spectral_norm(layer, rng=1)
    return T.utils.spectral_norm(layer)


class Ours:
    """minigan's layers under names that both have, with a seed where one is needed."""

    Sequential, Tanh, ReLU, LeakyReLU, Flatten = nn.Sequential, nn.Tanh, nn.ReLU, nn.LeakyReLU, nn.Flatten
    BatchNorm1d, BatchNorm2d, AvgPool, Reshape = nn.BatchNorm1d, nn.BatchNorm2d, nn.AvgPool, nn.Reshape
    Residual = nn.Residual

    Linear = staticmethod(lambda *a, **k: nn.Linear(*a, **k, rng=0))
    Conv2d = staticmethod(lambda *a, **k: nn.Conv2d(*a, **k, rng=0))
    ConvTranspose2d = staticmethod(lambda *a, **k: nn.ConvTranspose2d(*a, **k, rng=0))
    SelfAttention = staticmethod(lambda *a, **k: nn.SelfAttention(*a, **k, rng=0))


class Residual(T.Module):
    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.shortcut(x) + self.body(x)


class SelfAttention(T.Module):
    """As in the authors' code: keys and values pooled, no bias."""

    def __init__(self, channels, pool=True):
        super().__init__()
        self.pool = pool
        self.query = T.Conv2d(channels, channels // 8, 1, bias=False)
        self.key = T.Conv2d(channels, channels // 8, 1, bias=False)
        self.value = T.Conv2d(channels, channels // 2, 1, bias=False)
        self.out = T.Conv2d(channels // 2, channels, 1, bias=False)
        self.gamma = T.Parameter(torch.zeros(()))

    def forward(self, x):
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.pool:
            key, value = T.functional.max_pool2d(key, 2), T.functional.max_pool2d(value, 2)
        score = torch.einsum("ncp,ncj->npj", query.flatten(2), key.flatten(2))
        o = torch.einsum("npj,ncj->ncp", torch.softmax(score, dim=2), value.flatten(2))
        return self.gamma * self.out(o.view(len(x), -1, *x.shape[2:])) + x


class Theirs:
    """PyTorch's layers under the same names."""

    Sequential, Tanh, ReLU, LeakyReLU, Flatten = T.Sequential, T.Tanh, T.ReLU, T.LeakyReLU, T.Flatten
    BatchNorm1d, BatchNorm2d, AvgPool = T.BatchNorm1d, T.BatchNorm2d, T.AvgPool2d
    Linear, Conv2d, ConvTranspose2d = T.Linear, T.Conv2d, T.ConvTranspose2d
    Residual, SelfAttention = Residual, SelfAttention
    Reshape = staticmethod(lambda *shape: T.Unflatten(1, shape))


# ------------------------------------------------------------------------------- the networks


def mlp(L):
    return L.Sequential(
        L.Linear(20, 32), L.BatchNorm1d(32), L.LeakyReLU(0.2),
        L.Linear(32, 24), L.ReLU(),
        L.Linear(24, 9), L.Tanh(),
    )  # fmt: skip


def dcgan_generator(L):
    return L.Sequential(
        L.Reshape(12, 1, 1),
        L.ConvTranspose2d(12, 16, 7, bias=False), L.BatchNorm2d(16), L.ReLU(),
        L.ConvTranspose2d(16, 8, 4, 2, 1, bias=False), L.BatchNorm2d(8), L.ReLU(),
        L.ConvTranspose2d(8, 1, 4, 2, 1), L.Tanh(),
    )  # fmt: skip


def dcgan_discriminator(L):
    return L.Sequential(
        L.Conv2d(1, 8, 4, 2, 1), L.LeakyReLU(0.2),
        L.Conv2d(8, 16, 4, 2, 1, bias=False), L.BatchNorm2d(16), L.LeakyReLU(0.2),
        L.Conv2d(16, 1, 7), L.Flatten(),
    )  # fmt: skip


def sngan_discriminator(L):
    return L.Sequential(
        spectral(L.Conv2d(3, 8, 3, 1, 1)), L.LeakyReLU(0.1),
        spectral(L.Conv2d(8, 16, 4, 2, 1)), L.LeakyReLU(0.1),
        spectral(L.Conv2d(16, 16, 3, 1, 1, groups=4)), L.LeakyReLU(0.1),
        L.Flatten(), spectral(L.Linear(16 * 4 * 4, 1)),
    )  # fmt: skip


def sngan_generator(L):
    return L.Sequential(
        spectral(L.Linear(6, 8 * 2 * 2)), L.Reshape(8, 2, 2),
        spectral(L.ConvTranspose2d(8, 6, 4, 2, 1)), L.BatchNorm2d(6), L.ReLU(),
        spectral(L.ConvTranspose2d(6, 4, 3, 2, 1, output_padding=1, groups=2)), L.Tanh(),
    )  # fmt: skip


def residual_with_attention(L):
    body = L.Sequential(
        L.BatchNorm2d(8), L.ReLU(), spectral(L.Conv2d(8, 16, 3, padding=1)),
        L.BatchNorm2d(16), L.ReLU(), spectral(L.Conv2d(16, 16, 3, padding=1)), L.AvgPool(2),
    )  # fmt: skip
    attention = L.SelfAttention(16)
    for conv in attention.children():
        spectral(conv)
    return L.Sequential(L.Residual(body, L.Sequential(L.Conv2d(8, 16, 1), L.AvgPool(2))), attention)


def plain_attention(L):
    return L.Sequential(L.Conv2d(2, 8, 3, padding=1), L.SelfAttention(8, pool=False))


NETS = {  # a network, and the shape of one sample
    mlp: (20,),
    dcgan_generator: (12,),
    dcgan_discriminator: (1, 28, 28),
    sngan_discriminator: (3, 8, 8),
    sngan_generator: (6,),
    residual_with_attention: (8, 10, 6),
    plain_attention: (2, 3, 5),
}
every_net = pytest.mark.parametrize("net", NETS, ids=lambda net: net.__name__)


# -------------------------------------------------------------------------------- side by side


def pair(net):
    """The network twice, in float64, with the same values everywhere."""
    torch.manual_seed(20141210)
    theirs = net(Theirs).double()
    for name, parameter in theirs.named_parameters():
        if name.endswith("gamma"):  # at 0, attention would do nothing
            T.init.constant_(parameter, 0.8)
    ours = net(Ours).to(dtype="float64")
    assert set(ours.state_dict()) == set(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def assert_same(ours, theirs, what):
    ours = ours.numpy() if isinstance(ours, Tensor) else ours
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape, what
    scale = max(np.abs(theirs).max(initial=0.0), 0.1)  # a bias before BatchNorm has a gradient of 0
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=RTOL * scale, err_msg=what)


def assert_same_state(ours, theirs, when):
    there = theirs.state_dict()
    for name, value in ours.state_dict().items():
        assert_same(value, there[name], f"{name} {when}")


def forward_and_back(ours, theirs, x, when):
    """Compare y, and the gradients of Σ y · c + Σ y² with regard to x and all parameters. Return them."""
    x1, x2 = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y1, y2 = ours(x1), theirs(x2)
    assert_same(y1, y2, f"output {when}")
    c = np.random.default_rng(5).standard_normal(y1.shape)
    names = [name for name, _ in ours.named_parameters()]
    there = dict(theirs.named_parameters())
    assert set(names) == set(there)
    g1 = grad((y1 * c + y1 * y1).sum(), [x1, *ours.parameters()])
    g2 = torch.autograd.grad((y2 * torch.tensor(c) + y2 * y2).sum(), [x2, *(there[name] for name in names)])
    for name, a, b in zip(["x", *names], g1, g2, strict=True):
        assert_same(a, b, f"gradient of {name} {when}")
    return dict(zip(names, g1[1:], strict=True))


@every_net
def test_three_steps_of_training_then_eval(net, rng):
    ours, theirs = pair(net)
    for step in range(3):
        x = rng.standard_normal((4, *NETS[net]))
        gradients = forward_and_back(ours, theirs, x, f"in step {step}")
        assert_same_state(ours, theirs, f"after forward {step}")
        there = dict(theirs.named_parameters())
        for name, parameter in ours.named_parameters():
            g = gradients[name].numpy()
            descent = 0.01 * g / (1 + np.abs(g).max())
            parameter.data = parameter.data - descent
            there[name].data -= torch.tensor(descent)
    ours.eval()
    theirs.eval()
    forward_and_back(ours, theirs, rng.standard_normal((3, *NETS[net])), "in eval mode")
    assert_same_state(ours, theirs, "after eval mode")


@pytest.mark.parametrize("net", [dcgan_discriminator, sngan_discriminator, residual_with_attention])
def test_gradient_penalty(net, rng):
    """R1 in training mode: the mean of ‖∂ΣD/∂x‖², differentiated again, with regard to every parameter."""
    ours, theirs = pair(net)
    x = rng.standard_normal((4, *NETS[net]))
    x1, x2 = Tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)
    y1, y2 = ours(x1), theirs(x2)
    s1 = grad((y1 * y1).sum(), x1, create_graph=True)
    (s2,) = torch.autograd.grad((y2 * y2).sum(), x2, create_graph=True)
    assert_same(s1, s2, "gradient of x")
    names = [name for name, _ in ours.named_parameters()]
    there = dict(theirs.named_parameters())
    g1 = grad((s1 * s1).sum() / 4, ours.parameters(), unreachable="zeros")
    g2 = torch.autograd.grad((s2 * s2).sum() / 4, [there[name] for name in names], allow_unused=True)
    for name, a, b in zip(names, g1, g2, strict=True):
        assert_same(a, torch.zeros_like(there[name]) if b is None else b, f"second gradient of {name}")


@every_net
def test_state_goes_back_to_pytorch(net, rng):
    ours, theirs = pair(net)
    x = rng.standard_normal((4, *NETS[net]))
    y = ours(Tensor(x))
    ours.eval()
    back = net(Theirs).double().eval()
    back.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    assert_same(ours(Tensor(x)), back(torch.tensor(x)), "output")
    assert_same(y, theirs(torch.tensor(x)), "output in training")
