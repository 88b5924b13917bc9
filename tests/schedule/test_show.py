"""Loop nests in colours: the words are those of the text, in a terminal and as HTML."""

import html
import io
import re
import subprocess
import sys

from tensorlang import te
from tensorlang.schedule import Schedule
from tensorlang.schedule.show import as_html, last_step, pieces


def scheduled():
    x, w = te.placeholder((64, 32), name="x"), te.placeholder((32, 48), name="w")
    k = te.reduce_axis(32, "k")
    y = te.compute((64, 48), lambda i, j: te.sum(x[i, k] * w[k, j], axis=k), name="y")
    s = Schedule(te.create_prim_func("f", [x, w], [y]))
    i, j = s["y"].axis
    s["y"].parallel(i)
    s["y"].vectorize(s["y"].split(j, 16)[1])
    return s


def test_the_words_are_those_of_the_text():
    s = scheduled()
    assert "\n".join("".join(word for word, _ in line) for line in pieces(s.func)) == str(s.func)
    plain = io.StringIO()
    s.show(plain)
    marked = plain.getvalue().splitlines()
    assert [line for line in marked if "#" not in line] == str(s.func).splitlines()
    (carets,) = [n for n, line in enumerate(marked) if "^" in line]
    assert "in vectorized(16)" in marked[carets - 1] and "y.vectorize(j_i)" in marked[carets + 1]
    shown = re.sub(r"<details>.*</details>", "", s._repr_html_(), flags=re.S)
    text = html.unescape(re.sub(r"<[^>]*>", "", shown))
    assert text.splitlines() == marked


def test_kinds_stages_and_buffers_have_their_colours():
    s = scheduled()
    found = {(word, what) for line in pieces(s.func, s.trace) for word, what in line}
    assert {("parallel", "parallel"), ("vectorized", "vectorized"), ('"y"', "stage"), ("y", "buffer"), ("f32", "type")} <= found
    assert ("reduce", "iter") in found and ("range", "serial") in found
    assert any(what == "last" for _, what in found)


def test_html_is_self_contained_and_escaped():
    s = scheduled()
    page = s._repr_html_()
    chosen = te.compute((5,), lambda i: te.if_then_else(i < 3, 1, 2), name="z")
    assert "vi &lt; " in as_html(te.create_schedule(chosen).func)
    for outside in ("<script", "<link", "src=", "href=", "http"):
        assert outside not in page
    assert page.count("<div") == page.count("</div>") == 1 and page.count("<span") == page.count("</span>")
    assert "3 step(s)" in page and "y.split(j, 16)" in page


def test_the_last_step_is_the_loops_it_made_or_was_given_or_its_stage():
    s = scheduled()
    assert not last_step(s.func, None) and not last_step(s.original, Schedule(s.original).trace)
    (loop,) = last_step(s.func, s.trace)
    assert loop.kind == "vectorized"
    y = s["y"]
    y.split(y.loops[0], 8)
    made = last_step(s.func, s.trace)
    assert [f.var.name for f in made] == ["i_o", "i_i"] and list(made.values())[1] == ""


def test_rich_is_imported_when_it_is_needed():
    code = "import sys; import tensorlang.schedule; print('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_a_terminal_gets_colours(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = io.StringIO()
    scheduled().show(out)
    assert "\x1b[" in out.getvalue()
