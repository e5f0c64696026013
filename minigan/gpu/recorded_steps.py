"""Recorded steps: a step of training is recorded once, and from then on replayed.

A step of a small network is about a hundred launches, and Python takes longer to ask for them than a GPU
takes to do them. CUDA can record what is launched, as a graph, and do all of it again when it is asked once.
`Trainer(..., capture=True)` does that with whole steps of any Play. That changes nothing but the speed, and
who multiplies matrices (graphs.py). Nobody has to read this file to understand the others.

A replay does what was done in the recording, with the same memory and the same plain numbers. So everything
that is another from step to step has to lie on the GPU, at a fixed place:

    the number of the step    What a step draws (training/draws.py) depends on it alone, so it is the only
                              number that is put there before each replay. (_Clock)
    what is replaced          A step makes new arrays for the weights, for BatchNorm's running averages, for
                              spectral norm's u and v. A recorded step copies them back to where it found the
                              old ones. What is changed in place, as Adam's averages, stays there. (_Kept)
    an epoch's order          is put where the last one was, before the epoch begins.

Other numbers, such as a learning rate or the sigma of some noise, are those of the recording. They are looked
at before each replay. If one has changed, the recording is thrown away, and a new one is made after some
ordinary steps. Ordinary ("eager") steps and replays may follow each other in any order, since both leave
everything where the other looks for it. A step whose batches belong to two epochs, for one, is always eager.

The arrays of weights and buffers, and what a step reports, are written to by the next replay. Whoever wants
to keep them must copy them. (The Trainer does so for pictures and checkpoints.)"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import backend as _backend
from .. import nn
from ..backend import Array
from ..data.batches import Batches
from ..optim import Optimizer
from ..tensor import Tensor, constant
from .random import DeviceGenerator

if TYPE_CHECKING:
    from ..training.draws import Draws

__all__ = ["RecordedSteps", "obstacle"]

WARM_UP = 3  # eager steps in a row, with the same plain numbers, before one is recorded
RESTLESS = 20  # so often may numbers change until nobody tries to record any more

Report = Mapping[str, Any]
Step = Callable[["Draws"], Report]


def obstacle(play: Any, backend: str, before_step: Any = None) -> str | None:
    """Why steps of this Play cannot be recorded, as far as that can be known before; None if they can."""
    if backend != "cupy":
        return f"the backend {backend} launches nothing that could be recorded"
    if before_step is not None:
        return "before_step may change something in each step"
    for batches in play.data().values():
        if not batches.even:
            return (
                f"{batches.count} images make no batches of the same size; "
                f"choose one that divides {batches.count}"
            )
    for who, optimizer in _optimizers(play).items():
        if optimizer.scheduled:
            return f"the learning rate of {who} follows a schedule"
    return None


class RecordedSteps:
    """Does the steps of a Play: eager at first, then by replaying one that was recorded.

    why: the reason why it does not; None as long as it does, or tries. log: called with it. replays: how
    many steps have been replayed."""

    def __init__(self, play: Any, draws: Draws, before_step: Any = None):
        self.play = play
        self.why = obstacle(play, draws.backend, before_step)
        self.log: Callable[[str], object] = print
        self.replays = 0
        self._recorder: Any = None
        if self.why is None:
            from . import graphs  # for CuPy only, and loaded only here

            try:
                self._recorder = graphs.Recorder()
            except Exception as error:  # another CuPy than it was written for, or another cuBLAS
                self.why = _in_words(error)
        self._recording: _Recording | None = None
        self._seen: dict[str, Any] = {}  # the plain numbers of the last eager step
        self._calm = self._changes = 0  # eager steps without, and with, a change of them

    def step(self, draws: Draws, step: Step) -> Report:
        """step(draws), or a replay of it. Both do the same, to the last bit."""
        if self._recorder is None:
            return step(draws)
        with self._recorder.products():  # eager steps, too, lest rounding differs
            if self.why is None and self._ready(draws, step):
                assert self._recording is not None
                if self._recording.suits(draws.step):
                    self.replays += 1
                    return self._recording.replay(draws.step)
            return step(draws)

    def _ready(self, draws: Draws, step: Step) -> bool:
        """Whether there is a recording that fits. This may be the moment to make one."""
        plain = _plain_numbers(self.play)
        if self._recording is not None and plain == self._seen:
            return True
        self._recording = None
        changed = [name for name in plain if name not in self._seen or plain[name] != self._seen[name]]
        self._calm = 0 if changed or len(plain) < len(self._seen) else self._calm + 1
        self._changes += not self._calm
        self._seen = plain
        if self._changes > RESTLESS:
            self._give_up(f"{(changed or ['something'])[0]} changes from step to step")
        elif self._calm >= WARM_UP:
            self._record(draws, step)
        return self._recording is not None

    def _record(self, draws: Draws, step: Step) -> None:
        """Record a step like this one."""
        try:
            recording = _Recording(self.play, draws)
            recording.make(self._recorder, step)
        except _NotNow:
            self._calm = 0
        except Exception as error:  # whatever it is: without a recording everything works as well
            self._give_up(_in_words(error))
        else:
            self._recording, self._changes = recording, 0

    def _give_up(self, why: str) -> None:
        self.why = why
        self.log(f"capture: {why}; running eagerly")


class _NotNow(Exception):
    """This step cannot be recorded, but another may."""


class _Clock:
    """The number of the step where a recorded step looks for it: on the GPU. And the orders of the epochs.

    `draws` are those of the step of this number. They note which batches are drawn.
    """

    def __init__(self, draws: Draws, sets: Iterable[Batches]):
        self._to_device = _backend.get(draws.backend).from_numpy
        self._number = draws.step  # on the host
        self._step = self._to_device(np.array(draws.step, dtype=np.int64))
        self._drawn: list[tuple[Batches, int, int]] = []
        self._epochs = dict.fromkeys(sets, -1)  # whose orders are there
        self._orders = {data: self._to_device(np.zeros(data.count, np.int64)) for data in sets}
        self._places = {data: self._to_device(np.arange(data.count // len(data))) for data in sets}
        self.draws = draws.at(self._step)
        self.draws.batch = self._batch  # type: ignore[method-assign]

    def _batch(self, data: Batches, i: int = 0, of: int = 1) -> Any:
        if data not in self._orders:
            raise ValueError("a step draws from a data set that its Play does not name in data()")
        self._drawn.append((data, i, of))
        if not self.suits(self._number):
            raise _NotNow
        turn = (self._step * of + i) % len(data)
        rows = data.take(self._orders[data][turn * len(self._places[data]) + self._places[data]])
        return tuple(map(constant, rows)) if isinstance(rows, tuple) else constant(rows)

    def suits(self, number: int) -> bool:
        """Whether all batches that this step draws from a data set are of one epoch."""
        epochs: dict[Batches, int] = {}
        numbers = [(data, (number * of + i) // len(data)) for data, i, of in self._drawn]
        return all(epochs.setdefault(data, epoch) == epoch for data, epoch in numbers)

    def set(self, number: int) -> None:
        """The step to come is this one."""
        for data, i, of in self._drawn:
            epoch = (number * of + i) // len(data)
            if epoch != self._epochs[data]:
                self._orders[data][...] = self._to_device(data.order(epoch))
                self._epochs[data] = epoch
        self._step.fill(number)


class _Recording:
    """A recorded step, and what ties it to the Play: where it finds everything, and what it moves on."""

    def __init__(self, play: Any, draws: Draws):
        self._clock = _Clock(draws, play.data().values())
        self._homes = [_Home(optimizer) for optimizer in _optimizers(play).values()]
        self._kept = list(_kept(play, _backend.get(draws.backend)))

    def make(self, recorder: Any, step: Step) -> None:
        """Record. Nothing is done by that, and whatever comes of it, afterwards all is as it was before."""

        def work() -> Report:
            report = step(self._clock.draws)
            for home in self._homes:
                home.bring()
            _bring_back(self._kept)
            return report

        before = [home.optimizer.steps_done for home in self._homes]
        try:
            self._graph, self._report = recorder.record(work)
        finally:
            for home, done in zip(self._homes, before, strict=True):
                home.steps, home.optimizer.steps_done = home.optimizer.steps_done - done, done
                home.settle()
            for each in self._kept:
                each.put_back()

    def suits(self, number: int) -> bool:
        """Whether the step of this number is like the recorded one."""
        return self._clock.suits(number)

    def replay(self, number: int) -> Report:
        """Do the step."""
        _bring_back(self._kept)  # if an eager step, or anybody else, has replaced something
        for each in self._kept:
            each.put_back()
        for home in self._homes:
            home.bring()
            home.settle()
        self._clock.set(number)
        self._graph.replay()
        for home in self._homes:
            home.has_moved()
        return self._report


class _Home:
    """The memory where a recorded step finds an optimiser's parameters, and leaves them."""

    def __init__(self, optimizer: Optimizer):
        self.optimizer, self.steps = optimizer, 0
        self._flat = optimizer.flat
        self._memory = self._flat.empty()
        self._views = [self._flat.view(self._memory, i) for i in range(len(optimizer.params))]
        self.bring()
        self.settle()

    def bring(self) -> None:
        """Copy the parameters' values there, from wherever they are."""
        if all(p._data is view for p, view in zip(self.optimizer.params, self._views, strict=True)):
            return
        if (together := self._flat.together) is not None:
            self._memory[...] = together
            return
        for p, view in zip(self.optimizer.params, self._views, strict=True):
            if p._data is not view:
                view[...] = p._data

    def settle(self) -> None:
        """Have the parameters live there."""
        for p, view in zip(self.optimizer.params, self._views, strict=True):
            if p._data is not view:
                p._live_in(view)

    def has_moved(self) -> None:
        """A replay has made some steps."""
        self.optimizer.steps_done += self.steps
        for p in self.optimizer.params:
            assert p.leaf is not None
            p.leaf.version += 1


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


def _bring_back(several: list[_Kept]) -> None:
    """Copy what each attribute holds now into its first array. (Which another attribute may hold by now.)"""
    firsts = {id(each.array) for each in several}
    moves = [(each.array, each.current()) for each in several if each.current() is not each.array]
    moves = [(first, now.copy() if id(now) in firsts else now) for first, now in moves]
    for first, now in moves:
        first[...] = now


def _in_words(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


# --------------------------------------------------------------------------- what a Play consists of


def _optimizers(play: Any) -> dict[str, Optimizer]:
    return {who: part for who, part in play.parts().items() if isinstance(part, Optimizer)}


def _state(play: Any) -> Iterator[tuple[str, Any, str]]:
    """(name, owner, attribute) of what the Play and its parts hold, apart from optimisers.

    Weights that are computed before each use (nn/weights.py) are left out.
    """
    seen: set[int] = set()
    waiting = [("play", play), *((who, part) for who, part in play.parts().items() if _is_plain_object(part))]
    while waiting:
        name, owner = waiting.pop(0)
        if id(owner) in seen:
            continue
        seen.add(id(owner))
        for attribute, value in list(vars(owner).items()):
            if attribute in getattr(owner, "_computed", ()):
                continue
            inside = value if isinstance(value, dict) else dict(enumerate(_several(value)))
            waiting += [(f"{name}.{attribute}.{key}", x) for key, x in inside.items() if _is_plain_object(x)]
            yield f"{name}.{attribute}", owner, attribute


def _several(value: Any) -> Any:
    return value if isinstance(value, (list, tuple)) else [value]


def _is_plain_object(value: Any) -> bool:
    """Whether to look inside: a network, a game, a loss, a term. Not a data set, an optimiser, a function.

    (What an optimiser remembers is changed in place; what a generator draws depends on the step.)
    """
    others = (Optimizer, Batches, Tensor, DeviceGenerator, ModuleType, type)
    if isinstance(value, others) or not hasattr(value, "__dict__"):
        return False
    return isinstance(value, nn.Module) or not callable(value)


def _kept(play: Any, backend: _backend.Backend) -> Iterator[_Kept]:
    """The arrays among that, apart from the weights that an optimiser has in its memory."""
    trained = {id(p) for optimizer in _optimizers(play).values() for p in optimizer.params}
    for _, owner, attribute in _state(play):
        value = vars(owner)[attribute]
        array = value._data if isinstance(value, Tensor) else value
        if isinstance(array, backend.array_type) and id(value) not in trained:
            yield _Kept(owner, attribute)


def _plain_numbers(play: Any) -> dict[str, Any]:
    """What else there is: numbers, words, and of other things enough to notice that they are not the same."""
    found = {name: _plain(vars(owner)[attribute]) for name, owner, attribute in _state(play)}
    for who, optimizer in _optimizers(play).items():
        found |= {f"{who}.{name}": _plain(value) for name, value in optimizer.settings().items()}
    return found


def _plain(value: Any, in_list: bool = False) -> Any:
    """in_list: arrays in lists and dicts are not brought back, so they must be the same ones at each step."""
    if value is None or isinstance(value, (bool, int, float, str, np.dtype)):
        return value
    if isinstance(value, dict):
        return {key: _plain(each, in_list=True) for key, each in value.items()}
    if isinstance(value, (tuple, list)):
        return tuple(_plain(each, in_list=True) for each in value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Tensor):
        here = id(value) if value.leaf is not None else id(value._data) * in_list
        return value.shape, value.dtype, value.requires_grad, here
    return id(value) if in_list or isinstance(value, (nn.Module, Optimizer)) else type(value)
