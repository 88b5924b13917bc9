"""Every kind of operator as C: one program runs a case of each, and each equals its NumPy reference. No warning is given."""

from __future__ import annotations

import numpy as np
import pytest

from tensorlang import te
from tensorlang.build import lower_kernel
from tensorlang.graph import get
from tensorlang.graph.ops.serial import SerialOp
from tests.codegen.c.harness import EACH, kernel_program, run_c, split
from tests.graph.ops.test_te import CASES, Case, check


def lowered(case: Case, number: int):
    inputs = [te.placeholder(a.shape, a.dtype, name=f"x{k}") for k, a in enumerate(case.inputs)]
    outputs = get(case.op).te(*inputs, **case.attrs)
    func = te.create_prim_func("case", inputs, list(outputs) if isinstance(outputs, tuple) else [outputs])
    arrays = dict(zip([b.name for b in func.inputs], case.inputs, strict=True))
    arrays |= {b.name: np.empty(tuple(d.value for d in b.shape), b.dtype.numpy) for b in func.outputs}
    return lower_kernel(func, target="c", name=f"op{number}_{case.op}"), arrays


@pytest.mark.parametrize("machine", EACH, ids=lambda m: m.name)
def test_operators(machine, tmp_path):
    seen: dict[str, Case] = {}
    for case in CASES:
        if not isinstance(get(case.op), SerialOp):
            seen.setdefault(case.op, case)
    kernels = [lowered(case, n) for n, case in enumerate(seen.values())]
    text, outputs = kernel_program(kernels)
    results = iter(split(run_c({"operators.c": text}, tmp_path, machine), outputs))
    assert len(seen) > 100
    for case, (kernel, _) in zip(seen.values(), kernels, strict=True):
        check(case, [next(results) for _ in kernel.func.outputs])
