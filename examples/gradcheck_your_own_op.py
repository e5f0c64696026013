"""Write an op of your own, and let the checker tell whether its derivatives are right.

    python examples/gradcheck_your_own_op.py

The op is swish with a learned slope b, one for each column of x. With σ and σ' = σ (1 - σ) taken at b x:

    y = x σ        x̄ = ȳ (σ + b x σ')        b̄ = Σ ȳ x² σ'   (over all rows: they share b)

Then come three mistakes that are easily made, and what the checker says about each.
"""

import argparse

import numpy as np

import minigan as mg
from minigan import GradientError, adjoint_check, gradcheck, record
from minigan.backend import xp_of


def value(x, b):
    """y, from arrays. (1 + tanh(t/2)) / 2 is σ(t), and overflows nowhere."""
    return x * (1 + xp_of(x).tanh(b * x / 2)) / 2


def bump(t):
    """σ'(t), from Tensors: made of ops, so that it can be differentiated again."""
    return mg.sigmoid(t) * mg.sigmoid(-t)


def swish(x, b):
    return record(
        "swish",
        value(x.data, b.data),
        (x, lambda g: g * (mg.sigmoid(b * x) + b * x * bump(b * x))),
        (b, lambda g: g * x * x * bump(b * x)),
        broadcasts=True,  # the tape then sums b's gradient over the rows
    )


def forgotten_factor(x, b):
    """The derivative of σ(b x) for x is b σ', not σ'."""
    return record("swish", value(x.data, b.data), (x, lambda g: g * (mg.sigmoid(b * x) + x * bump(b * x))))


def saved_array(x, b):
    """The slope has the right value, but an array is a constant: that it depends on x is forgotten."""
    slope = (mg.sigmoid(b * x) + b * x * bump(b * x)).data
    return record("swish", value(x.data, b.data), (x, lambda g: g * slope))


def forgotten_sum(x, b):
    """Nothing says that b is broadcast."""
    return record("swish", value(x.data, b.data), (b, lambda g: g * x * x * bump(b * x)))


def shifted_apart(g):
    """ȳᵢ₋₁ - ȳᵢ, with zeros beyond the ends."""
    return mg.pad(g, [(1, 0)]) - mg.pad(g, [(0, 1)])


def differences(x):
    """yᵢ = xᵢ₊₁ - xᵢ        x̄ᵢ = ȳᵢ₋₁ - ȳᵢ"""
    return record("differences", x.data[1:] - x.data[:-1], (x, shifted_apart))


def not_the_adjoint(x):
    """The same with the wrong sign."""
    return record("differences", x.data[1:] - x.data[:-1], (x, lambda g: -shifted_apart(g)))


def ask(question, check, op, *inputs, **options):
    print(question)
    try:
        check(op, *inputs, **options)
        print("    all right\n")
    except (GradientError, ValueError) as error:
        print("    " + str(error).replace("\n", "\n    ") + "\n")


def main() -> None:
    """Ask about each op."""
    x, b = np.random.default_rng(0).normal(size=(4, 3)), np.array([0.5, 1.0, 2.0])
    ask("swish, first and second derivatives", gradcheck, swish, x, b)
    ask("A forgotten factor", gradcheck, forgotten_factor, x, b, argnums=0)
    ask(
        "An array where a Tensor is needed, first derivative",
        gradcheck,
        saved_array,
        x,
        b,
        argnums=0,
        order=1,
    )
    ask("The same, second derivative", gradcheck, saved_array, x, b, argnums=0)
    ask("A forgotten sum, where nothing is broadcast", gradcheck, forgotten_sum, x[0], b, argnums=1)
    ask("The same, where b is broadcast", gradcheck, forgotten_sum, x, b, argnums=1)

    # A linear op y = A x needs no finite differences: its gradient must be Aᵀ, and ⟨A x, g⟩ = ⟨x, Aᵀ g⟩.
    ask("A linear op", adjoint_check, differences, x[:, 0])
    ask("One whose gradient is not its adjoint", adjoint_check, not_the_adjoint, x[:, 0])


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    main()
