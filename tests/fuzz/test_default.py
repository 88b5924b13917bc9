"""The default schedule of a random program computes what the program means."""

from __future__ import annotations

from hypothesis import given, note

from tensorlang.build import schedule_of
from tensorlang.schedule import Schedule
from tensorlang.schedule.rules import Machine
from tests.fuzz import oracle, summary
from tests.fuzz.budget import examples
from tests.fuzz.programs import Program, programs

MACHINES = (Machine(64, 32), Machine(32, 16), Machine(16, 16, threads=1))


def scheduled(program: Program, machine: Machine | None = None) -> Schedule:
    s = schedule_of(program.func, machine=machine)
    for entry in s.proof:  # what could not be decided is run here, since builds do not
        status = entry.verdict.status
        assert status != "refuted", f"{entry.step}: {entry.verdict}\n{s}"
        summary.count("default schedules", status, symbolic=bool(program.func.size_vars))
    note(f"{s.trace}\n{s}")
    return s


@examples(40, share=10)
@given(programs())
def test_scheduled_and_lowered_as_each_machine_would(program):
    expected = oracle.meaning(program)
    for machine in MACHINES:
        s = scheduled(program, machine)
        oracle.check_interpreted(program, s, expected)
        oracle.check_lowered(program, s, expected)


@examples(20, share=20)
@given(programs())
def test_as_plain_python(program):
    oracle.check_plain(program, scheduled(program), oracle.meaning(program))


@examples(10, share=40)
@given(programs())
def test_as_machine_code(program):
    oracle.check_native(program, scheduled(program), oracle.meaning(program))
