"""Random programs under the default schedule mean in OpenCL C what the interpreter says."""

from __future__ import annotations

import pytest
from hypothesis import given, note

from tensorlang.build import build
from tests.fuzz import oracle
from tests.fuzz.budget import examples
from tests.fuzz.programs import programs

pytestmark = pytest.mark.usefixtures("device")


@examples(8, share=40)
@given(programs())
def test_default_schedules(program):
    kernel = build(program.func, target="opencl")
    note(kernel.source)
    found = kernel(*program.arrays)
    oracle.assert_same(program, found if isinstance(found, tuple) else (found,), oracle.meaning(program), "OpenCL C")
