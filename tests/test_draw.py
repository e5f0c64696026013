"""Looking at the tape changes nothing, and shows what is there: all of it, once, and under its name."""

from __future__ import annotations

import gc
import html
import importlib
import io
import re
import shutil
import subprocess
import threading
import weakref
from typing import Any

import numpy as np
import pytest

import minigan.ops  # binds the operators of Tensor
from minigan import backend
from minigan.tape import history, observing
from minigan.tensor import Tensor, grad, no_grad, record

# By name: `minigan.draw` may also be the function, if the package makes it public.
draw = importlib.import_module("minigan.draw")


def leaf(*shape: int, name: str = "leaf", dtype: str = "float64") -> Tensor:
    values = np.random.default_rng(len(name)).normal(size=shape)
    return Tensor(values, requires_grad=True, dtype=dtype, name=name)


# ------------------------------------------------------------------------------- the picture

_TOKEN = re.compile(r'\s*(->|"(?:[^"\\]|\\.)*"|[\w.]+|[\[\]{}=])')


def parse(dot: str) -> tuple[dict[str, dict[str, str]], list[tuple[str, str, dict[str, str]]]]:
    """The nodes {id: attributes} and edges [(from, to, attributes)] of a DOT text; it must be well formed."""
    tokens, at, text = [], 0, dot.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        assert match, f"not DOT: {text[at : at + 40]!r}"
        tokens.append(match[1])
        at = match.end()
    assert tokens[:1] + tokens[2:3] == ["digraph", "{"] and tokens[-1] == "}"
    assert tokens.count("{") == tokens.count("}") == 1 and tokens.count("[") == tokens.count("]")

    nodes: dict[str, dict[str, str]] = {}
    edges: list[tuple[str, str, dict[str, str]]] = []
    rest = tokens[3:-1][::-1]
    while rest:
        first, second = rest.pop(), ""
        if rest[-1] == "=":  # rankdir=TB
            rest.pop(), rest.pop()
            continue
        if rest[-1] == "->":
            rest.pop()
            second = rest.pop()
        attributes = {}
        if rest and rest[-1] == "[":
            rest.pop()
            while (key := rest.pop()) != "]":
                assert rest.pop() == "="
                attributes[key] = rest.pop()
        if second:
            edges.append((first, second, attributes))
        elif first not in ("node", "edge"):
            assert first not in nodes, f"{first} declared twice"
            nodes[first] = attributes
    assert all(end in nodes for a, b, _ in edges for end in (a, b)), "an edge leads to no node"
    return nodes, edges


def label(attributes: dict[str, str]) -> str:
    """What the reader of the picture sees in a box."""
    quoted = attributes["label"][1:-1]
    plain = re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], quoted)
    return html.unescape(plain)


def labels(dot: str) -> list[str]:
    return [label(attributes) for attributes in parse(dot)[0].values()]


def test_an_input_used_twice_has_two_edges():
    a = leaf(3, name="a")
    b = a + a
    nodes, edges = parse(draw.draw(b * b))
    assert [label(n) for n in nodes.values()] == ["a\n(3,) float64", "add\n(3,) float64", "mul\n(3,) float64"]
    assert [(start, end) for start, end, _ in edges] == [
        ("n0", "n1"),
        ("n0", "n1"),
        ("n1", "n2"),
        ("n1", "n2"),
    ]


def test_leaves_and_outputs_look_different():
    x, w = leaf(3, name="x"), leaf(3, name="w")
    y = x * w
    nodes, _ = parse(draw.draw(y, names=["product"]))
    assert "fillcolor" in nodes["n0"] and nodes["n0"] != nodes["n2"]
    assert [("peripheries" in n) for n in nodes.values()] == [False, False, True]
    assert label(nodes["n2"]) == "product = mul\n(3,) float64"


def test_shapes_and_dtypes():
    y = leaf(2, 3, name="w", dtype="float32").sum()
    assert labels(draw.draw(y)) == ["w\n(2, 3) float32", "sum\n() float32"]


@pytest.mark.parametrize(
    "name",
    [
        'say "W"',
        "back\\slash",
        "\\",
        '\\"',
        "two\nlines",
        "\\n",
        "\\N",
        "é ß 日本 🎲",
        "&amp;",
        "a & b",
        "<b>",
        "]}",
        "",
    ],
)
def test_names_are_shown_as_they_are(name):
    dot = draw.draw(Tensor(1.0, requires_grad=True, name=name) * 2)
    nodes, edges = parse(dot)
    assert label(nodes["n0"]) == f"{name}\n() float64"
    assert len(nodes) == 2 and len(edges) == 1


def test_characters_that_cannot_be_shown_are_spelled_out():
    name = "a\tb\0c\ud800d"
    dot = draw.draw(Tensor(1.0, requires_grad=True, name=name))
    assert labels(dot) == ["a\\tb\\x00c\\ud800d\n() float64"]
    dot.encode("utf-8")


def test_the_same_graph_gives_the_same_text():
    def text() -> str:
        x, w = leaf(4, name="x"), leaf(3, 4, name="w")
        y = (w @ x * 2.0).sum()
        return draw.draw(y, *grad(y, [x, w], create_graph=True))

    first = text()
    leaf(1)  # nodes are numbered on and on; a drawing has numbers of its own
    assert text() == first


def test_a_long_chain():
    y = leaf(name="x")
    for _ in range(10_000):
        y = y + 1.0
    nodes, edges = parse(draw.draw(y))
    assert len(nodes) == 10_001 and len(edges) == 10_000


def test_the_backward_graph_is_drawn_in_another_colour():
    x = leaf(3, name="x")
    y = (x * x * x).sum()
    forward_nodes, forward_edges = parse(draw.draw(y))
    gx = grad(y, x, create_graph=True)
    nodes, edges = parse(draw.draw(y, gx, names=["y", "dy/dx"]))

    assert len(nodes) == len(history(y.node, gx.node)) > len(forward_nodes)
    assert len(edges) > len(forward_edges)
    young = list(nodes.values())[len(forward_nodes) :]
    usual = {"label", "peripheries"}
    assert all(n.keys() - usual == {"color", "fillcolor"} for n in young)
    assert [n.keys() - usual == set() for n in forward_nodes.values()] == [False, True, True, True]
    assert all(bool(attributes) == (int(end[1:]) >= len(forward_nodes)) for _, end, attributes in edges)
    outputs = [label(n) for n in nodes.values() if "peripheries" in n]
    assert outputs[0] == "y = sum\n() float64" and outputs[1].startswith("dy/dx = ")


def test_without_create_graph_a_gradient_is_a_box_by_itself():
    x = leaf(3, name="x")
    y = (x * x).sum()
    assert labels(draw.draw(y, grad(y, x)))[-1] == "constant\n(3,) float64"
    assert len(parse(draw.draw(y, grad(y, x)))[1]) == 3


def test_a_tensor_without_history_is_one_box():
    nodes, edges = parse(draw.draw(Tensor([1.0, 2.0]), names=["c"]))
    assert [label(n) for n in nodes.values()] == ["c = constant\n(2,) float64"] and not edges
    w = leaf(2, name="W1")
    assert labels(draw.draw(w)) == ["W1\n(2,) float64"]
    assert labels(draw.draw(w.requires_grad_(False))) == ["W1 (frozen)\n(2,) float64"]
    with no_grad():
        assert labels(draw.draw(w * w)) == ["constant\n(2,) float64"]


def test_one_tensor_given_twice_is_drawn_once():
    y = leaf(name="x") * 2
    assert labels(draw.draw(y, y, names=["a", "b"]))[-1] == "a = b = mul\n() float64"


def test_drawing_refuses_what_it_cannot_draw():
    y = leaf(name="x") * 2
    with pytest.raises(TypeError, match="at least one"):
        draw.draw()
    with pytest.raises(TypeError, match=r"ys\[1\] is a NoneType"):
        draw.draw(y, None)
    with pytest.raises(ValueError, match="2 names for 1"):
        draw.draw(y, names=["a", "b"])
    with pytest.raises(ValueError, match="direction"):
        draw.draw(y, direction="up")
    assert "rankdir=LR" in draw.draw(y, direction="right")


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
@pytest.mark.parametrize("name", ['"quoted" \\n \\', "a & b &lt;", "日本", "]} -> n0 [x=y]"])
def test_graphviz_shows_the_same(name):
    dot = draw.draw(Tensor(1.0, requires_grad=True, name=name) * 2)
    svg = subprocess.run(
        ["dot", "-Tsvg"], input=dot.encode(), capture_output=True, check=True
    ).stdout.decode()
    shown = [html.unescape(text).replace("\xa0", " ") for text in re.findall(r"<text[^>]*>(.*?)</text>", svg)]
    assert shown == [name, "() float64", "mul", "() float64"]


# --------------------------------------------------------------------------------- the trace


def rows(t: Any) -> list[tuple]:
    return [(e.phase, e.op, e.shapes, e.shape, e.bytes) for e in t.events]


def test_every_op_and_every_vjp_is_listed_once():
    w, x, b = leaf(3, 4, name="w"), leaf(4, 2, name="x"), leaf(3, 2, name="bias")
    with draw.trace(show=False) as t:
        minigan.ops.tanh(w @ x + b).sum().backward()
    array = 3 * 2 * 8
    assert rows(t)[:4] == [
        ("forward", "matmul", ((3, 4), (4, 2)), (3, 2), array),
        ("forward", "add", ((3, 2), (3, 2)), (3, 2), array),
        ("forward", "tanh", ((3, 2),), (3, 2), array),
        ("forward", "sum", ((3, 2),), (), 8),
    ]
    assert [row[:4] for row in rows(t)[4:]] == [
        ("backward", "sum", ((),), (3, 2)),
        ("backward", "tanh", ((3, 2),), (3, 2)),
        ("backward", "add", ((3, 2),), (3, 2)),
        ("backward", "add", ((3, 2),), (3, 2)),
        ("backward", "matmul", ((3, 2),), (3, 4)),
        ("backward", "matmul", ((3, 2),), (4, 2)),
    ]
    made = [row[-1] for row in rows(t)[4:]]
    assert made[0] == 0, "the gradient of a sum is a view: one number, spread"
    assert made[1] >= array, "tanh's gradient and what was computed on the way"
    assert made[2:] == [0, 0, 3 * 4 * 8, 4 * 2 * 8], "add hands on what it got; matmul makes new arrays"
    assert {e.dtype for e in t.events} == {"float64"}


def test_numbers_have_the_shape_of_a_number():
    with draw.trace(show=False) as t:
        leaf(3) * 2.0
    assert rows(t) == [("forward", "mul", ((3,), ()), (3,), 24)]


def test_constants_are_traced_too():
    with draw.trace(show=False) as t, no_grad():
        Tensor(np.ones(3, "float32")) * Tensor(np.ones(3, "float32"))
    assert rows(t) == [("forward", "mul", ((3,), (3,)), (3,), 12)]


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.reshape(6),
        lambda x: x.T,
        lambda x: x[0],
        lambda x: minigan.ops.broadcast_to(x, (9, 2, 3)),
        lambda x: minigan.ops.unfold(x.reshape(1, 1, 2, 3), 2),
    ],
)
def test_a_view_costs_nothing(view, backend):
    x = Tensor(np.ones((2, 3)), requires_grad=True, backend=backend)
    with draw.trace(show=False) as t:
        view(x)
    assert {e.bytes for e in t.events} == {0}


def test_a_view_of_new_memory_is_new():
    x = leaf(2, 3)
    with draw.trace(show=False) as t:
        record("double", (x.data * 2).reshape(6), (x, lambda g: g))
        record("spread", np.broadcast_to(np.zeros(()), (1000,)), (x, lambda g: g))
        record("piece", np.zeros(1000)[:2], (x, lambda g: g))
    assert [e.bytes for e in t.events] == [48, 8, 16]


def test_a_short_cut_in_a_vjp_is_seen_by_its_result():
    x = leaf(5)
    y = record("shortcut", x.data * 2, (x, lambda g: Tensor(g.data * 2)))
    with draw.trace(show=False) as t:
        grad(y, x, np.ones(5))
    assert rows(t) == [("backward", "shortcut", ((5,),), (5,), 40)]


def test_a_vjp_made_of_several_ops_counts_what_each_of_them_makes():
    x = leaf(5)
    y = record("double", x.data * 2, (x, lambda g: (g * 4.0).reshape(1, 5).reshape(5) * 0.5))
    with draw.trace(show=False) as t:
        grad(y, x, np.ones(5))
    assert rows(t) == [("backward", "double", ((5,),), (5,), 80)]


def test_only_gradients_that_are_wanted_are_listed():
    x, w = leaf(3, name="x"), leaf(3, name="w")
    y = (x * w).sum()
    with draw.trace(show=False) as t:
        grad(y, w)
    assert [e.op for e in t.events if e.phase == "backward"] == ["sum", "mul"]


def test_with_create_graph_the_ops_of_a_vjp_are_not_listed_again():
    x, w = leaf(3, name="x"), leaf(3, name="w")
    with draw.trace(show=False) as t:
        y = minigan.ops.exp(x * w).sum()
        (g,) = grad(y, [x], create_graph=True)
    assert [(e.phase, e.op) for e in t.events] == [
        *[("forward", op) for op in ("mul", "exp", "sum")],
        *[("backward", op) for op in ("sum", "exp", "mul")],
    ]
    with draw.trace(show=False) as t:
        grad((g * g).sum(), [x, w])
    assert {e.op for e in t.events if e.phase == "backward"} >= {"sum", "mul", "exp"}


def test_a_vjp_that_asks_for_gradients_itself_is_one_row():
    x, inner = leaf(3), leaf(3)
    z = (inner * inner).sum()
    y = record("checkpoint", x.data * 2, (x, lambda g: g * grad(z, inner)))
    with draw.trace(show=False) as t:
        grad(y, x, np.ones(3))
    assert [(e.phase, e.op) for e in t.events] == [("backward", "checkpoint")]


# ---------------------------------------------------------------------------------- its clock


class Clock:
    """A clock that stands still until somebody works."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def work(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch) -> Clock:
    c = Clock()
    monkeypatch.setattr(draw, "perf_counter", c)
    return c


def starts() -> None:
    """What every op does first."""
    if (observer := observing.get()) is not None:
        observer.begin()


def seconds(t: Any) -> list[tuple[str, str, float]]:
    return [(e.phase, e.op, e.seconds) for e in t.events]


def test_time_is_counted_from_the_start_of_an_op_to_its_result(clock):
    x = leaf(3)

    def slow(x: Tensor) -> Tensor:
        starts()
        clock.work(2)
        return record("slow", x.data * 1, (x, vjp))

    def vjp(g: Tensor) -> Tensor:
        clock.work(5)
        return slow(g)

    with draw.trace(show=False) as t:
        clock.work(10)  # outside
        y = slow(x)
        clock.work(20)  # outside
        grad(y, x, np.ones(3))
    assert seconds(t) == [("forward", "slow", 2), ("backward", "slow", 7)]
    assert t.wall == 10 + 2 + 20 + 7
    clock.work(1000)
    assert t.wall == 39, "the block is over"


def test_ops_within_ops_do_not_count_time_twice(clock):
    x = leaf(3)

    def inner(x: Tensor) -> Tensor:
        starts()
        clock.work(2)
        return record("inner", x.data * 1, (x, lambda g: g))

    def outer(x: Tensor) -> Tensor:
        starts()
        h = inner(x)
        clock.work(3)
        return record("outer", h.data * 1, (h, lambda g: g))

    with draw.trace(show=False) as t:
        outer(x)
    assert seconds(t) == [("forward", "inner", 2), ("forward", "outer", 3)]
    assert t.wall == 5


def test_an_op_that_does_not_say_when_it_starts_began_when_the_last_event_ended(clock):
    x = leaf(3)
    with draw.trace(show=False) as t:
        starts()
        clock.work(1)
        record("first", x.data * 1, (x, lambda g: g))
        clock.work(2)
        record("second", x.data * 1, (x, lambda g: g))
    assert seconds(t) == [("forward", "first", 1), ("forward", "second", 2)]


def test_an_op_that_fails_leaves_no_time_to_the_next(clock):
    x = leaf(3)
    with draw.trace(show=False) as t:
        starts()
        clock.work(50)  # and then it raises
        starts()
        clock.work(1)
        record("next", x.data * 1, (x, lambda g: g))
    assert seconds(t) == [("forward", "next", 1)]


def test_the_clock_waits_for_the_device(clock, monkeypatch):
    class FakeArray(np.ndarray):
        pass

    device = backend.Backend("fake", FakeArray, np, np.asarray, np.asarray, lambda: clock.work(1))
    monkeypatch.setitem(backend._by_name, "fake", device)
    x = leaf(3)
    with draw.trace(show=False) as t:
        starts()
        record("op", x.data * 1, (x, lambda g: g))
    assert seconds(t) == [("forward", "op", 1)]


def test_seconds_add_up_to_no_more_than_the_wall_time():
    w, x = leaf(30, 40, name="w"), leaf(40, name="x")
    with draw.trace(show=False) as t:
        for _ in range(20):
            y = minigan.ops.tanh(w @ x).mean()
            grad(y, [w, x], create_graph=True)
    assert all(e.seconds >= 0 for e in t.events)
    assert 0 < sum(e.seconds for e in t.events) <= t.wall


# ------------------------------------------------------------------------- it changes nothing


def test_results_are_the_same_with_and_without():
    def compute() -> list[np.ndarray]:
        w, x = leaf(3, 4, name="w"), leaf(4, 2, name="x")
        y = minigan.ops.softplus(w @ x).sum()
        first = grad(y, [w, x], create_graph=True)
        second = grad((first[0] * first[0]).sum() + first[1].sum(), [w, x])
        y.backward()
        return [y.numpy(), w.grad.numpy(), x.grad.numpy(), *(g.numpy() for g in first + second)]

    plain = compute()
    with draw.trace(show=False) as t:
        traced = compute()
    assert t.events
    for a, b in zip(plain, traced, strict=True):
        np.testing.assert_array_equal(a, b)


def test_no_array_is_kept_alive():
    x = leaf(3)
    gc.disable()  # reference counts alone must do
    try:
        with draw.trace(show=False) as t:
            h = minigan.ops.tanh(x * 2.0)
            g = grad(h.sum(), x)
            alive = [
                weakref.ref(h.data),
                weakref.ref(g.data),
                weakref.ref(h),
                weakref.ref(h.node.edges[0][1]),
            ]
            del h, g
            assert [ref() for ref in alive] == [None] * 4, "already inside the block"
        assert t.events
    finally:
        gc.enable()


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_after_an_exception_the_trace_is_off(where, capsys):
    x = leaf(3)

    def fails(*_: Tensor) -> Tensor:
        raise RuntimeError("no")

    y = record("bad", x.data * 1, (x, fails))
    with pytest.raises(RuntimeError, match="no"), draw.trace() as t:
        x * 2
        if where == "forward":
            fails()
        grad(y, x, np.ones(3))
    assert observing.get() is None
    assert [e.op for e in t.events] == ["mul"]
    x * 3
    assert len(t.events) == 1
    assert capsys.readouterr().out == "", "a block that fails prints no table"


def test_after_a_vjp_fails_forward_ops_are_listed_again():
    x = leaf(3)

    def fails(g: Tensor) -> Tensor:
        raise RuntimeError("no")

    y = record("bad", x.data * 1, (x, fails))
    with draw.trace(show=False) as t:
        with pytest.raises(RuntimeError):
            grad(y, x, np.ones(3))
        x * 2
    assert [e.op for e in t.events] == ["mul"]


def test_what_a_wrong_vjp_returns_is_left_to_the_engine_to_refuse():
    x = leaf(3)
    y = record("bad", x.data * 1, (x, lambda g: None))
    with pytest.raises(TypeError) as plain:
        grad(y, x, np.ones(3))
    with pytest.raises(TypeError) as traced, draw.trace(show=False):
        grad(y, x, np.ones(3))
    assert str(traced.value) == str(plain.value)


def test_a_trace_within_a_trace():
    x = leaf(3)
    with draw.trace(show=False) as outer:
        x * 1.0
        with pytest.raises(RuntimeError), draw.trace(show=False) as inner:
            x + 1.0
            raise RuntimeError
        x - 1.0
    assert [e.op for e in inner.events] == ["add"]
    assert [e.op for e in outer.events] == ["mul", "add", "sub"]
    assert sum(e.seconds for e in outer.events) <= outer.wall
    assert inner.wall <= outer.wall
    assert observing.get() is None


def test_other_threads_are_not_seen():
    x = leaf(3)
    with draw.trace(show=False) as t:
        other = threading.Thread(target=lambda: x * 2.0)
        other.start()
        other.join()
    assert t.events == []


# --------------------------------------------------------------------------------- the table


def event(op: str, seconds: float, size: int = 0, phase: str = "forward") -> Any:
    return draw.Event(phase, op, ((2, 3), ()), (2, 3), "float32", seconds, size)


@pytest.fixture
def table_of(clock):
    def build(*events: Any, wall: float, **how) -> str:
        with draw.trace(show=False) as t:
            clock.work(wall)
        t.events += events
        return t.table(**how)

    return build


def test_the_table_by_op(table_of):
    text = table_of(
        event("mul", 0.001, 1500),
        event("matmul", 0.25, 2_000_000),
        event("mul", 0.003, 1500),
        event("mul", 0.00005, 10, "backward"),
        wall=0.5,
    )
    assert text.splitlines() == [
        "op           phase     calls       time   share   bytes",
        "-------------------------------------------------------",
        "matmul       forward       1  250.00 ms   50.0%  2.0 MB",
        "mul          forward       2    4.00 ms    0.8%  3.0 kB",
        "mul          backward      1    50.0 us    0.0%    10 B",
        "-------------------------------------------------------",
        "all ops                    4  254.05 ms   50.8%  2.0 MB",
        "outside ops                   245.95 ms   49.2%",
        "wall time                     500.00 ms  100.0%",
    ]


def test_the_table_by_event(table_of):
    text = table_of(event("slow", 1.0, 24), event("slower", 2.0), wall=4.0, by="event")
    assert text.splitlines()[:4] == [
        "op           phase    shapes in  shape out  dtype    call    time   share  bytes",
        "--------------------------------------------------------------------------------",
        "slow         forward  (2, 3) ()  (2, 3)     float32     1  1.00 s   25.0%   24 B",
        "slower       forward  (2, 3) ()  (2, 3)     float32     2  2.00 s   50.0%    0 B",
    ]


def test_a_limited_table_says_what_it_leaves_out(table_of):
    text = table_of(event("a", 3.0), event("b", 2.0), event("c", 1.0), wall=8.0, limit=1)
    assert "(2 more rows)" in text and "all ops" in text and "\nb" not in text
    assert "6.00 s" in text, "the sum is of all rows"


def test_a_table_of_nothing(table_of):
    assert "all ops" in table_of(wall=0.0) and "all ops" in table_of(wall=0.0, by="event")


def test_a_table_of_an_unknown_kind(table_of):
    with pytest.raises(ValueError, match="'op' or 'event'"):
        table_of(wall=1.0, by="shape")


def test_the_table_is_printed_at_the_end(capsys):
    with draw.trace():
        leaf(3) * 2.0
    assert "mul" in capsys.readouterr().out
    with draw.trace(show=False):
        leaf(3) * 2.0
    assert capsys.readouterr().out == ""
    file = io.StringIO()
    with draw.trace(file=file):
        leaf(3) * 2.0
    assert capsys.readouterr().out == "" and "mul" in file.getvalue()


def test_the_table_can_be_read_before_the_end():
    with draw.trace(show=False) as t:
        leaf(3) * 2.0
        assert "mul" in t.table()
        assert t.wall > 0
