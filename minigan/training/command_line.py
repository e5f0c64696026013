"""What the training programs in examples/ have in common: arguments, `--resume`, and how they end.

    parser = command.arguments(__doc__, "mnist_mlp_gan", epochs=20)
    parser.add_argument("--recipe", ...)
    if __name__ == "__main__":
        command.run(train, parser)

Exit codes: 0 done; 2 it could not begin or go on, one line says why; 3 a number became infinite or NaN; 130
stopped by Ctrl-C, 143 by SIGTERM, both after saving.
"""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from .. import nn
from ..backend import BackendError, shortage
from ..backend import get as get_backend
from ..data import DataError
from ..finite import NonFiniteError
from ..gan.by_name import LOSSES, PENALTIES, loss, penalty
from ..gan.gmmn import GMMN
from ..gan.penalties import SlopeTerm
from ..gan.steps import Game
from ..optim import Adam
from ..process import performance
from ..streams import stream
from .checkpoint import RunError
from .progress import Interrupted
from .run_folder import free_folder, read_config
from .trainer import Trainer

__all__ = [
    "arguments",
    "game",
    "has_gradient_penalty",
    "nonnegative_int",
    "parse",
    "positive_int",
    "printer",
    "run",
    "trainer",
]

LESS = "close other programs that use the GPU (nvidia-smi lists them), or take smaller batches or networks"
# What may be given together with --resume; everything else is as the run began.
CHANGEABLE = ("epochs", "quiet", "tensorboard", "data_dir", "save_every", "capture")


def _at_least(least: int, kind: Callable[[str], Any], words: str) -> Callable[[str], Any]:
    """A type for argparse: finite numbers of this kind, from `least` on."""

    def parsed(text: str) -> Any:
        try:
            number = kind(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no {words}") from None
        if not least <= number < 2**63:
            raise argparse.ArgumentTypeError(f"{number} must be {least} or more, and less than 2⁶³")
        return number

    return parsed


nonnegative_int = _at_least(0, int, "whole number")
positive_int = _at_least(1, int, "whole number")
nonnegative = _at_least(0, float, "number")


def arguments(doc: str | None, name: str, epochs: int, images: bool = True) -> argparse.ArgumentParser:
    """A parser with the arguments that all training programs have. doc: its first line is the description."""
    parser = argparse.ArgumentParser(
        description=(doc or "").strip().partition("\n")[0],
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=96),
    )
    parser.set_defaults(program=name)
    add = parser.add_argument
    add("--epochs", type=positive_int, default=epochs, help=f"times through the data ({epochs})")
    losses = [*LOSSES, "gmmn"]
    add("--loss", choices=losses, default="non-saturating", metavar="NAME", help=", ".join(losses))
    add("--penalty", choices=PENALTIES, default="none", metavar="NAME", help=f"{', '.join(PENALTIES)}")
    add("--penalty-weight", type=nonnegative, metavar="W", help="factor of the penalty (each has its own)")
    add("--seed", type=nonnegative_int, default=0, help="another seed, other results (0)")
    add("--backend", choices=["numpy", "cupy"], default="numpy", help="cupy: on a GPU")
    add("--tf32", action="store_true", help="on a GPU: products of matrices faster, and less exact")
    add("--capture", action="store_true", help="on a GPU: record a step and replay it, which is faster")
    if images:
        add(
            "--dataset",
            choices=["auto", "mnist", "fashion-mnist", "digits"],
            default="auto",
            help="auto: MNIST if it is here or can be fetched, else digits drawn from fonts",
        )
        add("--data-dir", type=Path, help="folder with the files of MNIST (or $MINIGAN_DATA)")
    add("--out", type=Path, help=f"folder of the run (runs/{name}-1, -2 ...)")
    add("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    add("--d-steps", type=positive_int, default=1, metavar="N", help="steps of D for each of G (1)")
    add("--save-every", type=nonnegative, default=30.0, metavar="SECONDS", help="between checkpoints (30)")
    add("--tensorboard", action="store_true", help="write events for TensorBoard, too (needs tensorboardX)")
    add("--quiet", action="store_true", help="print nothing")
    return parser


def parse(parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; those of a run that is resumed are taken from its config.json.

    >>> options = parse(arguments("An example.", "example", epochs=3), ["--seed", "7", "--out", "here"])
    >>> options.seed, options.epochs, options.loss
    (7, 3, 'non-saturating')
    """
    options = parser.parse_args(argv)
    name = parser.get_default("program")
    if name is None:  # not a training program
        return options
    if options.resume is None:
        options.out = options.out or free_folder(name)
        return _with_absolute_paths(options)
    if options.out is not None:
        raise RunError(f"--resume {options.resume} goes on in that folder; leave --out {options.out} out")
    config = read_config(options.resume)
    saved = config.get("options")
    if not isinstance(saved, dict) or saved.get("program") != name:
        began = saved.get("program") if isinstance(saved, dict) else None
        raise RunError(f"{options.resume}: is no run of {name}" + (f", but of {began}" if began else ""))
    for path in ("data_dir", "out"):
        if saved.get(path) is not None:
            saved[path] = Path(saved[path])
    saved["out"] = options.resume  # the folder may have been moved
    saved["quiet"] = False
    again = _with_absolute_paths(parser.parse_args(argv, argparse.Namespace(**saved)))
    for key, value in vars(again).items():
        if key not in (*CHANGEABLE, "resume", "out") and value != saved.get(key, parser.get_default(key)):
            raise RunError(
                f"{options.resume}: began with --{key.replace('_', '-')} {saved.get(key)}, which cannot "
                "be changed when it goes on"
            )
    again.out = options.resume
    return again


def _with_absolute_paths(options: argparse.Namespace) -> argparse.Namespace:
    """A run may be resumed from another folder."""
    if getattr(options, "data_dir", None) is not None:
        options.data_dir = options.data_dir.resolve()
    return options


def run(
    main: Callable[[argparse.Namespace], Any], parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
) -> None:  # fmt: skip
    """Parse the arguments, call main(options), and end with an exit code that says how it went."""
    for stream_out in (sys.stdout, sys.stderr):  # what a terminal or file cannot show becomes "?"
        if hasattr(stream_out, "reconfigure"):
            stream_out.reconfigure(errors="replace")
    try:
        options = parse(parser, argv)
        get_backend(getattr(options, "backend", "numpy"))  # before the work begins: is it there?
        with _tf32(options):
            main(options)
    except Interrupted as stop:
        print(f"\n{stop}", file=sys.stderr)
        if stop.folder is not None:
            again = shlex.join([sys.argv[0], "--resume", str(stop.folder)])
            print(f"go on with: python {again}", file=sys.stderr)
        sys.exit(128 + stop.signal)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except NonFiniteError as error:
        print(error, file=sys.stderr)
        sys.exit(3)
    except Exception as error:
        lack = shortage(error)  # a MemoryError of CuPy's, too, or what CUDA calls by another name
        if lack is not None:
            print(f"{parser.prog}: {lack}; {LESS}", file=sys.stderr)
        elif isinstance(error, RunError | DataError | BackendError | OSError | MemoryError):
            print(f"{parser.prog}: {error}", file=sys.stderr)
        else:
            raise
        sys.exit(2)


def _tf32(options: argparse.Namespace) -> AbstractContextManager[Any]:
    """Inside, CuPy multiplies matrices as --tf32 says (minigan/process.py)."""
    if not getattr(options, "tf32", False):
        return nullcontext()
    if options.backend == "numpy":
        printer(options)("--tf32 has no effect on the backend numpy, which multiplies in full precision")
        return nullcontext()
    return performance(threads=1, keep_memory=False, tf32=True)


def has_gradient_penalty(options: argparse.Namespace) -> bool:
    """Whether --penalty takes D's slope at each image. Then D must not have layers that mix images."""
    return any(isinstance(term, SlopeTerm) for term in penalty(options.penalty, nn.Sequential(), rng=0))


def printer(options: argparse.Namespace) -> Callable[[str], None]:
    """print; with --quiet a function that does nothing."""
    return (lambda line: None) if options.quiet else print


def game(
    options: argparse.Namespace, g: nn.Module, d: nn.Module, lr: float, betas: tuple[float, float]
) -> Game | GMMN:
    """The Game of these networks on --backend, with --loss and --penalty, both players trained by Adam.

    With --loss gmmn there is no D, and G plays alone.
    """
    g.to(options.backend)
    d.to(options.backend)
    if options.loss == "gmmn":
        if options.penalty != "none":
            raise RunError("--loss gmmn has no discriminator, so there is nothing for --penalty")
        return GMMN(g, Adam(g.parameters(), lr, betas))
    chosen = loss(options.loss)
    if options.loss == "wasserstein" and options.penalty == "none":
        printer(options)("wasserstein wants --penalty gp, clip or spectral; without, D's loss falls for ever")
    weight = {} if options.penalty_weight is None else {"weight": options.penalty_weight}
    try:
        terms = penalty(options.penalty, d, stream(options.seed, "spectral"), **weight)
        adam_g, adam_d = (Adam(network.parameters(), lr, betas) for network in (g, d))
        return Game(g, d, chosen, adam_g, adam_d, terms)
    except ValueError as error:  # names that do not go together
        raise RunError(f"--loss {options.loss} --penalty {options.penalty}: {error}") from error


def trainer(options: argparse.Namespace, game: Game | GMMN, data: Any, **settings: Any) -> Trainer:
    """The Trainer of this game, in the folder that --out or --resume says."""
    try:
        return Trainer(
            game, data, seed=options.seed, folder=options.out, resume=options.resume is not None,
            save_every=options.save_every, d_steps=options.d_steps, quiet=options.quiet,
            simultaneous=options.penalty == "consensus", tensorboard=options.tensorboard,
            capture=options.capture, options={k: v for k, v in vars(options).items() if k != "resume"},
            **settings,
        )  # fmt: skip
    except (ValueError, TypeError) as error:  # options and data that do not go together
        raise RunError(str(error)) from error
