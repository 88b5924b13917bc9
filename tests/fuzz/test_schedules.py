"""Random programs under random schedules mean what they meant: in the interpreter, after each pass, and as code.

`make fuzz` runs FUZZ_EXAMPLES cases of the first test (`make test`: 200), and a share of them of the slower ones.
"""

from __future__ import annotations

from hypothesis import given, note, strategies as st

from tensorlang.build import build
from tensorlang.schedule import Schedule
from tests.fuzz import oracle
from tests.fuzz.budget import PARTS, examples, parts
from tests.fuzz.programs import programs
from tests.fuzz.steps import random_steps
from tests.fuzz.values import Draw


def scheduled(draw: Draw, program) -> Schedule:
    s = Schedule(program.func)
    random_steps(draw, s, program)
    note(f"{s.trace}\n{s}")
    return s


@parts
@examples(200, share=PARTS)
@given(programs(), st.data())
def test_scheduled_programs_keep_their_meaning(part, program, data):
    s = scheduled(data.draw, program)
    oracle.check_interpreted(program, s, oracle.meaning(program))


@examples(25, share=5)
@given(programs(), st.data())
def test_lowered_programs_keep_their_meaning(program, data):
    s = scheduled(data.draw, program)
    oracle.check_lowered(program, s, oracle.meaning(program))


@examples(15, share=20)
@given(programs(), st.data())
def test_emitted_text_run_as_plain_python_keeps_their_meaning(program, data):
    s = scheduled(data.draw, program)
    oracle.check_plain(program, s, oracle.meaning(program))


@examples(10, share=40)
@given(programs(), st.data())
def test_machine_code_keeps_their_meaning(program, data):
    s = scheduled(data.draw, program)
    oracle.check_native(program, s, oracle.meaning(program))


@examples(25, share=20)
@given(programs(), st.data())
def test_a_trace_replays_to_the_same_program_and_text(program, data):
    s = scheduled(data.draw, program)
    again = Schedule(program.func)
    s.trace.replay(again)
    assert str(again) == str(s)
    assert str(again.trace) == str(s.trace)
    assert build(again).source == build(s).source
