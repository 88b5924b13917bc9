"""Random programs, under random and under the default schedule, mean in C what the interpreter says."""

from __future__ import annotations

import shutil

import pytest
from hypothesis import given, note, reject, strategies as st

from tensorlang.build import Kernel, build
from tensorlang.ir.stmt import For
from tensorlang.ir.visitor import walk_stmt
from tensorlang.schedule import Schedule
from tensorlang.schedule.loops import THREAD_AXES
from tests.fuzz import oracle
from tests.fuzz.budget import examples
from tests.fuzz.programs import programs
from tests.fuzz.steps import random_steps

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")


def check(program, kernel: Kernel) -> None:
    note(kernel.source)
    found = kernel(*program.arrays)
    oracle.assert_same(program, found if isinstance(found, tuple) else (found,), oracle.meaning(program), "C")


@examples(12, share=40)
@given(programs())
def test_default_schedules(program):
    check(program, build(program.func, target="c"))


@examples(12, share=40)
@given(programs(), st.data())
def test_random_schedules(program, data):
    s = Schedule(program.func)
    random_steps(data.draw, s, program)
    if any(isinstance(f, For) and f.kind in THREAD_AXES for f in walk_stmt(s.func.body)):
        reject()  # C has no threads
    check(program, build(s, target="c"))
