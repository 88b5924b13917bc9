"""Random programs under random schedules mean what they meant: in the interpreter, after each pass, and as code."""

from __future__ import annotations

from hypothesis import given, note, strategies as st

from tensorlang.build import build
from tensorlang.schedule import Schedule
from tests.fuzz import oracle
from tests.fuzz.budget import examples
from tests.fuzz.programs import programs
from tests.fuzz.steps import random_steps


@examples(60)
@given(programs(), st.data())
def test_scheduled_and_lowered_programs_keep_their_meaning(program, data):
    s = Schedule(program.func)
    random_steps(data.draw, s)
    note(f"{s.trace}\n{s}")
    expected = oracle.meaning(program)
    oracle.check_interpreted(program, s, expected)
    oracle.check_lowered(program, s, expected)


@examples(30)
@given(programs(), st.data())
def test_emitted_text_run_as_plain_python_keeps_their_meaning(program, data):
    s = Schedule(program.func)
    random_steps(data.draw, s)
    note(f"{s.trace}\n{s}")
    oracle.check_plain(program, s, oracle.meaning(program))


@examples(12, share=10)
@given(programs(), st.data())
def test_machine_code_keeps_their_meaning(program, data):
    s = Schedule(program.func)
    random_steps(data.draw, s)
    note(f"{s.trace}\n{s}")
    oracle.check_native(program, s, oracle.meaning(program))


@examples(30)
@given(programs(), st.data())
def test_a_trace_replays_to_the_same_program_and_text(program, data):
    s = Schedule(program.func)
    random_steps(data.draw, s)
    note(f"{s.trace}\n{s}")
    again = Schedule(program.func)
    s.trace.replay(again)
    assert str(again) == str(s)
    assert str(again.trace) == str(s.trace)
    assert build(again).source == build(s).source
