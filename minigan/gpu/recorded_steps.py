"""Capture: a step of training is recorded once, and from then on replayed.

A step of a small network is about a hundred launches (gpu/formulas.py), and Python takes longer to ask for
them than a GPU takes to do them. CUDA can record what is launched, as a graph, and do all of it again when it
is asked once. `Trainer(..., capture=True)` does that with whole steps. That changes nothing but the speed,
and on a GPU who multiplies matrices (gpu/graphs.py). Nobody has to read this file to understand the
others.

A replay does what was done in the recording, with the same memory and the same plain numbers. So everything
that is another from step to step has to lie on the device, at a fixed place:

    where training is     The numbers of the step, its batches and its noise, and Adam's counts of steps. The
                          last thing that a recorded step does is to move them on. (Place, _Recorded)
    what is replaced      A step makes new arrays for BatchNorm's running averages, for spectral norm's u and
                          v, for BEGAN's k. A recorded step copies them back to where it found the old ones.
                          Weights are written in place anyhow (optim/flat.py). (_Kept)
    an epoch's order      is put where the last one was, before the epoch begins. (data/batches.py)

Other numbers, such as a learning rate or the sigma of some noise, are those of the recording. They are looked
at before each replay. If one has changed, the recording is thrown away, and a new one is made after some
ordinary steps. Ordinary ("eager") steps and replays may follow each other in any order, since both leave
everything where the other looks for it. A step whose batches belong to two epochs, for one, is always eager.

What is outside: the moving average of G, whose decay changes in the first steps, and the sums for the report.

The arrays of weights and buffers, and the numbers of the Report, are written to by the next replay. Whoever
wants to keep them must copy them. (The Trainer does so for pictures and checkpoints.)

How CuPy records is said in gpu/graphs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import backend as _backend
from .. import nn
from ..backend import Array
from ..data.batches import Batches
from ..gan.steps import Game, Report
from ..optim import Optimizer
from ..tensor import Tensor, constant

__all__ = ["Capture", "Place", "obstacle"]

WARM_UP = 3  # eager steps in a row, with the same plain numbers, before one is recorded
RESTLESS = 20  # so often may numbers change until nobody tries to record any more


class Place(NamedTuple):
    """Where training is: the number of the step, and those of its batches and its noise, from 0.

    They are whole numbers; or in a step that is recorded, places on the device where they lie, 0-d, int64. A
    batch is then counted within its epoch.
    """

    step: Any
    batches: Sequence[Any]
    noises: Sequence[Any]


Play = Callable[[Place], Report]


def obstacle(game: Game, batches: Batches, before_step: Any = None) -> str | None:
    """Why steps of this game cannot be recorded, as far as that can be known before; None if they can."""
    backend = batches.backend.name
    if backend != "cupy":
        return f"the backend {backend} launches nothing that could be recorded"
    if before_step is not None:
        return "before_step may change something in each step"
    if not batches.even:
        return (
            f"{batches.count} images make no batches of the same size; "
            f"choose one that divides {batches.count}"
        )
    for who, optimizer in _optimizers(game).items():
        if optimizer.scheduled:
            return f"the learning rate of {who} follows a schedule"
    if game.unrolled is not None and game.unrolled.steps and game.unrolled.remember:
        return "Unrolled(remember=True) needs Adam's count of steps in Python"
    return None


class Capture:
    """Plays the steps of a game: eager at first, then by replaying one that was recorded.

    why: the reason why it does not; None as long as it does, or tries. tell: who hears of it. replays: how
    many steps have been replayed.
    """

    def __init__(self, game: Game, batches: Batches, before_step: Any = None):
        self.game, self.batches = game, batches
        self.why = obstacle(game, batches, before_step)
        self.tell: Callable[[str], object] = print
        self.replays = 0
        self._recorder: Any = None
        if self.why is None:
            try:
                self._recorder = _recorder(batches.backend)
            except Exception as error:  # another CuPy than it was written for, or another cuBLAS
                self.why = _in_words(error)
        self._recorded: _Recorded | None = None
        self._seen: dict[str, Any] = {}  # the plain numbers of the last eager step
        self._calm = self._changes = 0  # eager steps without, and with, a change of them

    def step(self, place: Place, play: Play) -> Report:
        """play(place), or a replay of it. Both do the same, to the last bit."""
        if self._recorder is None:
            return play(place)
        with self._recorder.products():  # eager steps, too, lest rounding differs
            turn = self.batches.turn(place.batches[0])  # from now on the order of this epoch is at hand
            turns = range(turn, turn + len(place.batches))
            if self.why is None and turns.stop <= len(self.batches):
                inside = place._replace(batches=turns)
                if self._ready(inside, play):
                    assert self._recorded is not None
                    self.replays += 1
                    return self._recorded.replay(inside)
            return play(place)

    def _ready(self, place: Place, play: Play) -> bool:
        """Whether there is a recording that fits. This may be the moment to make one."""
        plain = _plain_numbers(self.game)
        if self._recorded is not None and plain == self._seen:
            return True
        self._recorded = None
        changed = [name for name in plain if name not in self._seen or plain[name] != self._seen[name]]
        self._calm = 0 if changed or len(plain) < len(self._seen) else self._calm + 1
        self._changes += not self._calm
        self._seen = plain
        if self._changes > RESTLESS:
            self._give_up(f"{(changed or ['something'])[0]} changes from step to step")
        elif self._calm >= WARM_UP:
            self._record(place, play)
        return self._recorded is not None

    def _record(self, place: Place, play: Play) -> None:
        """Record a step like this one."""
        assert self._recorder is not None
        try:
            recorded = _Recorded(self.game, place, self.batches.backend)
            recorded.make(self._recorder, play)
        except Exception as error:  # whatever it is: without a recording everything works as well
            self._give_up(_in_words(error))
        else:
            self._recorded, self._changes = recorded, 0

    def _give_up(self, why: str) -> None:
        self.why = why
        self.tell(f"capture: {why}; running eagerly")


class _Recorded:
    """A recorded step, and what ties it to the game: where it finds everything, and what it moves on."""

    def __init__(self, game: Game, place: Place, backend: _backend.Backend):
        self._players = [_Player(optimizer) for optimizer in _optimizers(game).values()]
        self._kept = list(_kept(game, backend))
        self._to_device = lambda numbers: backend.from_numpy(np.array(numbers, dtype=np.int64))
        self._numbers = self._numbers_of(place)
        self._clock = self._to_device(self._numbers)  # the same numbers on the device
        self._cut = 1 + len(place.batches), 1 + len(place.batches) + len(place.noises)

    def make(self, recorder: Any, play: Play) -> None:
        """Record. Nothing is done by that, and whatever comes of it, afterwards all is as it was before."""
        places = [self._clock[i : i + 1].reshape(()) for i in range(len(self._clock))]
        first, last = self._cut
        there = Place(places[0], places[1:first], places[first:last])
        moves = [1, *[first - 1] * (first - 1), *[last - first] * (last - first)]
        self._onward = self._to_device([*moves, *[0] * len(self._players)])  # optimisers raise their counts
        for count in places:
            count += 1  # once before, so that the kernels for it are there
        self._move_on()
        self._clock[...] = self._to_device(self._numbers)

        def work() -> Report:
            report = play(there)
            for player in self._players:
                player.optimizer.return_to(player.home, bring=True)
            _bring_back(self._kept)
            self._move_on()
            return report

        try:
            for player, count in zip(self._players, places[last:], strict=True):
                player.optimizer.count_at(count)
            self._graph, self._report = recorder.record(work)
        finally:
            for player in self._players:
                player.rewind()
            for each in self._kept:
                each.put_back()
        self._moves = [*moves, *[player.steps for player in self._players]]

    def replay(self, place: Place) -> Report:
        """Do the step."""
        _bring_back(self._kept)  # if an eager step, or anybody else, has replaced something
        for each in self._kept:
            each.put_back()
        for player in self._players:
            player.optimizer.return_to(player.home, bring=True)
        if (numbers := self._numbers_of(place)) != self._numbers:  # an epoch begins, or a run goes on
            self._clock[...] = self._to_device(numbers)
        self._graph.replay()
        self._numbers = [number + move for number, move in zip(numbers, self._moves, strict=True)]
        for player in self._players:
            player.optimizer.has_moved(player.steps, player.counts)
        return self._report

    def _move_on(self) -> None:
        self._clock[...] = self._clock + self._onward

    def _numbers_of(self, place: Place) -> list[int]:
        """All that lies on the clock."""
        counts = [max(player.optimizer.counts) for player in self._players]
        return [place.step, *place.batches, *place.noises, *counts]


class _Player:
    """An optimiser, the memory of its parameters, and what a recorded step adds to its counts."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer, self.home = optimizer, optimizer.home()
        self.steps, self.counts = 0, [0] * len(optimizer.params)
        self._before = optimizer.steps_done, optimizer.counts

    def rewind(self) -> None:
        """After the recording: what it has counted is known now, but has not been done."""
        steps, counts = self._before
        self.steps = self.optimizer.steps_done - steps
        self.counts = [now - then for now, then in zip(self.optimizer.counts, counts, strict=True)]
        self.optimizer.count_at(None)
        self.optimizer.has_moved(-self.steps, [-count for count in self.counts])
        self.optimizer.return_to(self.home, bring=False)


class _Kept:
    """An array that an attribute holds, and that a step may replace by another one."""

    def __init__(self, owner: Any, attribute: str):
        self._owner, self._attribute = owner, attribute
        self.array = self.current()  # the recorded step finds it here

    def current(self) -> Array:
        """What the attribute holds."""
        value = vars(self._owner)[self._attribute]
        return value._data if isinstance(value, Tensor) else value

    def put_back(self) -> None:
        """Have the attribute hold the first array again, with the values that are in there."""
        if self.current() is self.array:
            return
        value = vars(self._owner)[self._attribute]
        if not isinstance(value, Tensor):
            setattr(self._owner, self._attribute, self.array)
        elif value.leaf is None:
            setattr(self._owner, self._attribute, constant(self.array))
        else:
            value._live_in(self.array)


def _bring_back(several: Sequence[_Kept]) -> None:
    """Copy what each attribute holds now into its first array. (Which another attribute may hold by now.)"""
    firsts = {id(each.array) for each in several}
    moves = [(each.array, each.current()) for each in several if each.current() is not each.array]
    moves = [(first, now.copy() if id(now) in firsts else now) for first, now in moves]
    for first, now in moves:
        first[...] = now


def _in_words(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# --------------------------------------------------------------------------- what a game consists of


def _recorder(backend: _backend.Backend) -> Any:
    """What records launches of this backend: something with products() and record(work)."""
    from . import graphs  # for CuPy only, and loaded only here

    return graphs.Recorder()


def _optimizers(game: Game) -> dict[str, Optimizer]:
    both = {"G": game.g_optimizer, "D": game.d_optimizer}
    return {who: optimizer for who, optimizer in both.items() if optimizer is not None}


def _parts(game: Game) -> dict[str, Any]:
    """The networks and the rules, by name."""
    parts: dict[str, Any] = {"g": game.g, "d": game.d, "loss": game.loss, "unrolled": game.unrolled}
    return parts | {f"terms.{i}": term for i, term in enumerate(game.terms)}


def _state(game: Game) -> Iterator[tuple[str, Any, str]]:
    """(name, owner, attribute) of what the networks, the loss and the terms hold.

    Weights that are computed before each use (nn/weights.py) are left out.
    """
    for who, part in _parts(game).items():
        modules = part.named_modules(who) if isinstance(part, nn.Module) else [(who, part)]
        for name, module in modules if part is not None else ():
            for attribute in list(vars(module)):
                if attribute not in getattr(module, "_computed", ()):
                    yield f"{name}.{attribute}", module, attribute


def _kept(game: Game, backend: _backend.Backend) -> Iterator[_Kept]:
    """The arrays among that, apart from the weights that an optimiser has in its memory."""
    trained = {id(p) for optimizer in _optimizers(game).values() for p in optimizer.params}
    for _, owner, attribute in _state(game):
        value = vars(owner)[attribute]
        array = value._data if isinstance(value, Tensor) else value
        if isinstance(array, backend.array_type) and id(value) not in trained:
            yield _Kept(owner, attribute)


def _plain_numbers(game: Game) -> dict[str, Any]:
    """What else there is: numbers, words, and of other things enough to notice that they are not the same."""
    found = {name: _told(vars(owner)[attribute]) for name, owner, attribute in _state(game)}
    found |= {who: id(part) for who, part in _parts(game).items()}
    found |= {f"game.{name}": _told(value) for name, value in vars(game).items()}
    for who, optimizer in _optimizers(game).items():
        found |= {f"{who}.{name}": _told(value) for name, value in optimizer.settings().items()}
    return found


def _told(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str, np.dtype)):
        return value
    if isinstance(value, (tuple, list)):
        return tuple(map(_told, value))
    if isinstance(value, Tensor):
        return value.shape, value.dtype, value.requires_grad, id(value) * (value.leaf is not None)
    return id(value) if isinstance(value, nn.Module) else type(value)
