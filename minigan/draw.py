r"""Looking at the tape: `draw` makes a picture of a graph, `trace` lists what ran and how long it took.

Both only look. `draw` follows the nodes behind a Tensor and writes them down in DOT, the language
of Graphviz. `trace` is told by the engine of every op and of every vjp, and keeps a row for each:
names, shapes, seconds and bytes, never an array.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any, TextIO

from . import backend as _backend
from .backend import Array
from .tape import Leaf, Node, Vjp, history, observing
from .tensor import Tensor

__all__ = ["Event", "Trace", "draw", "trace"]

Shape = tuple[int, ...]


# ------------------------------------------------------------------------------- the picture

_HEAD = """\
digraph minigan {
  rankdir=%s nodesep=0.3 ranksep=0.35
  node [shape=box style="rounded,filled" fontname="Helvetica" fontsize=11 height=0.4 margin="0.12,0.06"]
  node [color="#5b7aa5" fillcolor="#eef3fa"]
  edge [color="#5b7aa5" arrowsize=0.6]"""
_LEAF = ' style=filled color="#a8862f" fillcolor="#fbf1d3"'
_CONSTANT = ' style="filled,dashed" color="#808080" fillcolor=white'
_LATER = ' color="#b0604f" fillcolor="#f9ebe7"'
_LATER_EDGE = ' [color="#b0604f"]'
_OUTPUT = " peripheries=2"
_DIRECTIONS = {"down": "TB", "right": "LR"}


def draw(*ys: Tensor, names: Sequence[str] = (), direction: str = "down") -> str:
    r"""The graph behind the Tensors `ys`, as text in the DOT language.

    Every box is a Tensor: the op that made it, its shape, its dtype. Arrows run from an op's input
    to its output. Yellow boxes with sharp corners are leaves, under their names. A double border
    marks the given ys. Only history is drawn: a constant that went into an op has none.

    Gradients made with create_graph=True are Tensors with a history, so `draw(y, *gradients)` shows
    the backward pass too. What is not in the history of the first y is red: for `draw(y, gx)`, that
    is the backward pass.

    names: what to call the ys, one each. direction: "down" or "right".

    To see the picture, write the text to a file and let Graphviz render it:
    `dot -Tpng graph.dot -o graph.png`, or paste it into an online DOT viewer.

    >>> x = Tensor([1.0, 2.0], requires_grad=True, name="x")
    >>> for line in draw(x * x, names=["y"]).splitlines()[-5:]:
    ...     print(line)
      n0 [label="x\n(2,) float64" style=filled color="#a8862f" fillcolor="#fbf1d3"]
      n1 [label="y = mul\n(2,) float64" peripheries=2]
      n0 -> n1
      n0 -> n1
    }
    """
    _check(ys, names, direction)
    labels = names or [""] * len(ys)
    called: dict[Node, list[str]] = {}  # the nodes of the ys, and what the user calls them
    for y, name in zip(ys, labels, strict=True):
        if y.node is not None:
            called.setdefault(y.node, []).append(name)
    nodes = history(*called)[::-1]  # oldest first
    number = {node: i for i, node in enumerate(nodes)}  # node.number differs from run to run
    first = set() if ys[0].node is None else set(history(ys[0].node))

    lines = [_HEAD % _DIRECTIONS[direction]]
    for node in nodes:
        look = _LEAF if isinstance(node, Leaf) else "" if node in first else _LATER
        mark = _OUTPUT if node in called else ""
        lines.append(_box(number[node], node.name, called.get(node, ()), node, look + mark))
    alone = [(y, name) for y, name in zip(ys, labels, strict=True) if y.node is None]
    for i, (y, name) in enumerate(alone, start=len(nodes)):  # nothing behind it: a box by itself
        what = "constant" if y.leaf is None else f"{y.leaf.name} (frozen)"
        lines.append(_box(i, what, [name], y, _CONSTANT + _OUTPUT))
    for node in nodes:
        look = "" if node in first else _LATER_EDGE
        lines += [f"  n{number[parent]} -> n{number[node]}{look}" for parent, _, _ in node.edges]
    return "\n".join([*lines, "}"]) + "\n"


def _check(ys: Sequence[Any], names: Sequence[str], direction: str) -> None:
    if not ys:
        raise TypeError("draw: give at least one Tensor")
    for i, y in enumerate(ys):
        if not isinstance(y, Tensor):
            raise TypeError(f"draw: ys[{i}] is a {type(y).__name__}, not a Tensor")
    if names and len(names) != len(ys):
        raise ValueError(f"draw: {len(names)} names for {len(ys)} Tensors")
    if direction not in _DIRECTIONS:
        raise ValueError(f"draw: direction must be 'down' or 'right', not {direction!r}")


def _box(number: int, what: str, called: Iterable[str], t: Node | Tensor, look: str) -> str:
    title = " = ".join([*(name for name in called if name), what])
    return f'  n{number} [label="{_escaped(title)}\\n{t.shape} {t.dtype}"{look}]'


def _escaped(text: str) -> str:
    r"""`text` for a DOT label, which has escapes of its own: backslashes, quotes, and &amp; as in HTML.

    >>> print(_escaped('a "b" \\ c & d'))
    a \"b\" \\ c &amp; d
    """
    special = {"\n": "\\n", '"': '\\"', "\\": "\\\\", "&": "&amp;"}
    return "".join(special.get(c) or (c if c.isprintable() else _spelled_out(c)) for c in text)


def _spelled_out(c: str) -> str:
    r"""A character that cannot be shown, as Python would write it; its backslash doubled for DOT."""
    return "\\" + c.encode("unicode_escape").decode()


# --------------------------------------------------------------------------------- the trace


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that ran.

    phase "forward": an op, with the shapes of its inputs, the shape and dtype of its result, its
    seconds, and the bytes of its result (0 if that is a view of an input: nothing new was made).

    phase "backward": one vjp of an op, from the gradient of the op's output (`shapes`) to that of one
    input (`shape` and `dtype`). Seconds and bytes are those of everything that the vjp calls.
    """

    phase: str
    op: str
    shapes: tuple[Shape, ...]
    shape: Shape
    dtype: str
    seconds: float
    bytes: int


@contextmanager
def trace(show: bool = True, *, file: TextIO | None = None) -> Iterator[Trace]:
    """Write down every op and every vjp that runs inside the block; at its end, print the table.

    show: print the table (to `file`, or to the standard output) unless the block fails. The rows are
    in `t.events`; `t.table(by="event")` shows them one by one.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> with trace(show=False) as t:
    ...     (x * x).sum().backward()
    >>> [(event.op, event.shape) for event in t.events if event.phase == "forward"][:2]
    [('mul', (2,)), ('sum', ())]
    >>> {event.op for event in t.events if event.phase == "backward"} == {"mul", "sum"}
    True

    How the time is counted:
    - An op's time runs from the moment it starts (for an op that does not say so: from whatever ended
      before) until it has its result. No moment is counted twice. If an op calls another, the inner one
      has its own row, and the outer one keeps what follows it.
    - The ops that a vjp calls are not listed again: their time and bytes are the vjp's.
    - What the walk does between vjps (add gradients that meet, sum the gradient of an input that was
      broadcast, copy a result that is a view) is no vjp's time. Where it uses an op for it, that op is
      listed by itself, as "backward".
    - Arrays on a device: the clock is read when the device has finished, so tracing costs its overlap.

    A trace within a trace: both list what runs in the inner block (the outer one when that block ends).
    Ops in other threads are not seen. No array is kept alive.
    """
    outer = observing.get()
    t = Trace()
    token = observing.set(t)
    try:
        yield t
    finally:
        observing.reset(token)
        t._stop()
        if isinstance(outer, Trace):
            outer._take_over(t)
    if show:
        print(t.table(), file=file)


class Trace:
    """What ran inside a `with trace()` block: the rows in `events`, and `table` to read them.

    `walking`, `begin`, `forward` and `backward` are called by the engine.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._walks = 0  # backward walks under way: more than one if a vjp asks for gradients
        self._in_vjp = False
        self._vjp_bytes = 0  # made so far by the vjp that is running
        self._ended: float | None = None
        self._started = self._mark = _now()  # _mark: since when the running op has been running

    @property
    def wall(self) -> float:
        """Seconds from the block's beginning to its end, or until now."""
        return (_now() if self._ended is None else self._ended) - self._started

    def walking(self, step: int) -> None:
        """A backward walk begins (1) or ends (-1)."""
        self._walks += step

    def begin(self) -> None:
        """An op starts."""
        if not self._in_vjp:
            self._mark = _now()

    def forward(self, name: str, data: Array, inputs: Sequence[Any]) -> None:
        """Op `name` has computed `data` from `inputs`."""
        if self._in_vjp:
            self._vjp_bytes += _new_bytes(data, [x.data for x in inputs])
            return
        seconds = _now() - self._mark
        made = _new_bytes(data, [x.data for x in inputs])
        shapes = tuple(x.shape for x in inputs)
        phase = "backward" if self._walks else "forward"
        self.events.append(Event(phase, name, shapes, data.shape, str(data.dtype), seconds, made))
        self._mark = perf_counter()  # what was just done here is nobody's time

    def backward(
        self, node: Node, vjp: Vjp, g: Tensor, pull: Callable[[Node, Vjp, Tensor], Tensor]
    ) -> Tensor:
        """Run pull(node, vjp, g) under the clock."""
        if self._in_vjp:  # a vjp that itself asks for gradients
            return pull(node, vjp, g)
        self._in_vjp, self._vjp_bytes = True, 0
        start = _now()
        try:
            part = pull(node, vjp, g)
            seconds = _now() - start
        finally:
            self._in_vjp = False
            self._mark = perf_counter()
        # A vjp may take a short cut that is not an op: then only its result shows what it made.
        made = max(self._vjp_bytes, _new_bytes(part.data, [g.data, node.output]))
        dtype = str(part.dtype)
        self.events.append(Event("backward", node.name, (g.shape,), part.shape, dtype, seconds, made))
        self._mark = perf_counter()
        return part

    def table(self, by: str = "op", limit: int | None = None) -> str:
        """The events as text. by="op": one row per op and phase, the slowest first. by="event": one row
        each, in order. limit: show that many rows only. Shares are of the wall time.
        """
        if by not in ("op", "event"):
            raise ValueError(f"table: by must be 'op' or 'event', not {by!r}")
        wall = self.wall
        head, rows = (_rows_by_op if by == "op" else _rows_by_event)(self.events, wall)
        hidden = 0 if limit is None else max(0, len(rows) - limit)
        rows = rows[: len(rows) - hidden]
        inside = sum(event.seconds for event in self.events)
        made = _size(sum(event.bytes for event in self.events))
        blank = [""] * (len(head) - 5)
        foot = [
            ["all ops", *blank, str(len(self.events)), *_time_and_share(inside, wall), made],
            ["outside ops", *blank, "", *_time_and_share(max(0.0, wall - inside), wall), ""],
            ["wall time", *blank, "", *_time_and_share(wall, wall), ""],
        ]
        more = [f"({hidden} more rows)"] if hidden else []
        return _aligned(head, rows, more, foot)

    def _stop(self) -> None:
        self._ended = _now()

    def _take_over(self, inner: Trace) -> None:
        """List what an inner trace saw, whose block has just ended."""
        if not self._in_vjp:
            self.events += inner.events
        self._mark = perf_counter()


def _now() -> float:
    """The clock, once every device has finished what it was given."""
    for home in _backend.loaded():
        home.synchronize()
    return perf_counter()


def _new_bytes(array: Array, old: Iterable[Any]) -> int:
    """The memory that came with `array`: none if it looks into the memory of one of the old arrays."""
    xp = _backend.xp_of(array)
    if any(type(other) is type(array) and xp.may_share_memory(array, other) for other in old):
        return 0
    owner = array
    while getattr(owner, "base", None) is not None:
        owner = owner.base
    # A number spread over a shape has less memory than entries, a slice less than its owner.
    return min(array.nbytes, getattr(owner, "nbytes", array.nbytes))


# --------------------------------------------------------------------------------- the table


def _rows_by_op(events: Sequence[Event], wall: float) -> tuple[list[str], list[list[str]]]:
    groups: dict[tuple[str, str], list[Event]] = {}
    for event in events:
        groups.setdefault((event.op, event.phase), []).append(event)
    rows = []
    for (op, phase), group in sorted(groups.items(), key=lambda item: -_seconds(item[1])):
        made = _size(sum(event.bytes for event in group))
        rows.append([op, phase, str(len(group)), *_time_and_share(_seconds(group), wall), made])
    return ["op", "phase", "calls", "time", "share", "bytes"], rows


def _rows_by_event(events: Sequence[Event], wall: float) -> tuple[list[str], list[list[str]]]:
    rows = []
    for i, e in enumerate(events, start=1):
        shapes = " ".join(map(str, e.shapes))
        cost = [*_time_and_share(e.seconds, wall), _size(e.bytes)]
        rows.append([e.op, e.phase, shapes, str(e.shape), e.dtype, str(i), *cost])
    return ["op", "phase", "shapes in", "shape out", "dtype", "call", "time", "share", "bytes"], rows


def _seconds(events: Iterable[Event]) -> float:
    return sum(event.seconds for event in events)


def _time_and_share(seconds: float, wall: float) -> list[str]:
    return [_time(seconds), f"{seconds / wall if wall else 0.0:.1%}"]


def _time(seconds: float) -> str:
    """
    >>> _time(2.5), _time(0.0125), _time(0.00001)
    ('2.50 s', '12.50 ms', '10.0 us')
    """
    if seconds >= 1:
        return f"{seconds:.2f} s"
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"


def _size(count: float) -> str:
    """
    >>> _size(96), _size(31_400), _size(2_500_000)
    ('96 B', '31.4 kB', '2.5 MB')
    """
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"


def _aligned(head: list[str], rows: list[list[str]], more: list[str], foot: list[list[str]]) -> str:
    """Columns of equal width: words to the left, and the numbers, in the last four, to the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, *foot, strict=True)]

    def line(cells: list[str]) -> str:
        words = [c.ljust(w) for c, w in zip(cells[:-4], widths, strict=False)]
        numbers = [c.rjust(w) for c, w in zip(cells[-4:], widths[-4:], strict=True)]
        return "  ".join(words + numbers).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([line(head), rule, *map(line, rows), *more, rule, *map(line, foot)])
