"""The front end's walk over a function: the same numbers as Python's own, for every statement that emitted code may have."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tensorlang.build.cpu import compile_and_load, compile_source
from tensorlang.codegen.native import frontend, run_plain
from tensorlang.codegen.native.compile import bitcode
from tensorlang.codegen.native.source import split_functions
from tensorlang.config import Settings
from tensorlang.errors import InternalError
from tensorlang.runtime.context import context_address

HEADER = "from tensorlang.codegen.intrinsics import *\n\n\n"

# Bodies of `f(ctx, x: f32*, y: f32*, n)`, with n = 6, 16 numbers in x, and y to be written.
CASES = {
    "a loop": "for i in range(n):\n    y[i] = x[i]",
    "from a start": "for i in range(2, n):\n    y[i] = x[i]",
    "that does not run": "for i in range(n, 2):\n    y[i] = x[i]\nfor i in range(5, 2):\n    y[i] = x[i]",
    "by steps": "for i in range(0, 10, 3):\n    y[i] = x[i]",
    "by steps to a bound": "for i in range(1, n + 5, 3):\n    y[i] = x[i]",
    "by steps that do not run": "for i in range(n, n - 1, 3):\n    y[i] = x[i]",
    "backwards": "for i in range(5, 0, -1):\n    y[i] = x[i] + i",
    "backwards by steps": "for i in range(n, -1, -4):\n    y[i] = x[i] + i",
    "nested": "for i in range(3):\n    for j in range(i, n):\n        y[j] = y[j] + i * j",
    "break": "for i in range(9):\n    if i == n:\n        break\n    y[i] = x[i]",
    "continue": "for i in range(9):\n    if i == n:\n        continue\n    y[i] = x[i]",
    "break and continue inside": (
        "for i in range(3):\n    for j in range(9):\n        if j < i:\n            continue\n"
        "        if j > n:\n            break\n        y[i * 4 + j % 4] += x[j]"
    ),
    "a variable changed in its loop": "for i in range(4):\n    i = i * 2\n    y[i] = x[i]",
    "a variable after its loop": "for i in range(4):\n    y[i] = x[i]\ny[i + 1] = 7.0",
    "a variable as its own bound": "i = 3\nfor i in range(i, i + 3):\n    y[i] = x[i]",
    "a bound that changes": "for i in range(n):\n    n = 2\n    y[i] = x[i]",
    "while": "k = 0\nwhile k < n and x[k] < 4.0:\n    y[k] = x[k]\n    k += 1",
    "while not": "k = 0\nwhile not (k >= n or x[k] > 4.0):\n    y[k] = x[k]\n    k = k + 2",
    "sums": "s = f32(0.0)\nfor i in range(n):\n    s = s + x[i]\n    y[i] = s",
    "updates": "s = 0\nfor i in range(n):\n    s += i\n    y[i] += s\n    y[i] *= f32(2.0)\n    y[i] -= x[i]",
    "if": (
        "for i in range(n):\n    if i % 3 == 0:\n        y[i] = 1.0\n    elif i % 3 == 1:\n        y[i] = x[i]\n"
        "    else:\n        y[i] = -x[i]"
    ),
    "names by way": "if n > 3:\n    t = x[1]\nelse:\n    t = x[2]\ny[0] = t",
    "a name of one way": "t = x[1]\nif n > 3:\n    t = x[2]\ny[0] = t\nif n > 9:\n    t = x[3]\ny[1] = t",
    "expressions with if": "for i in range(n):\n    y[i] = x[i - 2] if i >= 2 and i < 5 else (x[0] if i == 0 else f32(9.0))",
    "an if of numbers": "for i in range(n):\n    k = i if i > 2 else i32(2)\n    y[k] = k",
    "truth values": (
        "a = n > 2 and n < 4\nb = n > 2 or n < 4 and x[0] > 1.0\n"
        "y[0] = f32(1.0) if a else f32(2.0)\ny[1] = f32(1.0) if b else f32(2.0)"
    ),
    "a chain": "for i in range(n):\n    if 1 <= i < 4:\n        y[i] = x[i]\n    y[i + 6] = f32(1 if 0 < i <= 2 < n else 2)",
    "early return": "for i in range(n):\n    if i == 4:\n        return\n    y[i] = x[i]",
    "a name of two types": "t = n + 1\ny[0] = t\nt = x[3]\ny[1] = t\nt = vload(x, 0, 4)\nvstore(y, 4, t)",
    "a name whose types meet": "t = i32(n)\nfor i in range(3):\n    t = t + i\n    y[i] = t\ny[5] = t",
    "a name of two types by way": "if n > 3:\n    t = vload(x, 0, 4)\n    vstore(y, 0, t)\nelse:\n    t = x[0]\n    y[0] = t",
    "what was computed before": (
        "a = n * 3 + 1\nb = n * 3 + 1\nn = n + 1\nc = n * 3 + 1\ny[a - 14] = x[b - 14]\ny[c - 14] = x[n * 3 + 1 - 14]\n"
        "for i in range(3):\n    y[n - 7 + i] = n * 3 + 1 + i\n    n = n + 1\n    y[n - 7 + i] = n * 3 + 1"
    ),
    "zeros of both signs": (
        "y[0] = f32(1.0) / (f32(0.0) * x[1])\ny[1] = f32(1.0) / (f32(-0.0) * x[1])\ny[2] = f32(1.0) / f32(-0.0)"
    ),
    "literals": "y[0] = 2 * 8 - 3\ny[1] = -2 * -(3 + 1)\ny[2] = 7 // 2\ny[3] = -7 // 2\ny[4] = -1.5\ny[5] = float('inf')",
    "loads are not kept": "a = x[0] + y[0]\ny[0] = 5.0\nb = x[0] + y[0]\ny[1] = a\ny[2] = b",
    "division": "for i in range(n):\n    y[i] = (i - 3) // 2 + 10 * ((i - 3) % 4) + floordiv_pos(i, 4) + floormod_pos(i, 4)",
}


def run_both(body: str, settings: Settings, tmp_path) -> tuple[np.ndarray, np.ndarray]:
    """What `body` writes compiled, and in Python."""
    lines = "\n".join("    " + line for line in body.splitlines())
    source = f'{HEADER}@kernel("f32* x, f32* y, i64 n")\ndef f(ctx, x, y, n):\n{lines}\n'
    x = np.arange(16, dtype=np.float32) + np.float32(0.5)
    native, plain = np.zeros(32, np.float32), np.zeros(32, np.float32)
    library = compile_and_load(source, settings=settings)
    assert library["f"](context_address(), x.ctypes.data, native.ctypes.data, 6) == 0
    run_plain(source, tmp_path / "f.py")["f"](None, x, plain, 6)
    return native, plain


@pytest.mark.parametrize("case", CASES)
def test_statements_mean_what_they_mean_in_python(case: str, settings: Settings, tmp_path):
    native, plain = run_both(CASES[case], settings, tmp_path)
    np.testing.assert_array_equal(native, plain)
    if "not run" not in case:
        assert plain.any(), "the case shows something"


REFUSED = {
    "a name without a value": ("y[0] = what", "what"),
    "something that emitted code never has": ("y[0] = [x[i] for i in range(3)]", "emitted code has no"),
    "a step that is not known": ("for i in range(0, 9, n):\n    y[i] = 1.0", "emitted code has no"),
    "types that no rule knows": ("y[0] = vload(x, 0, 4) + vload(x, 0, 8)", "Vec"),
    "types that do not meet": ("t = x[0]\nfor i in range(n):\n    t = vload(x, 0, 4)\nvstore(y, 0, t)", "on one way"),
    "logic on numbers": ("y[0] = n and 3", "of numbers"),
    "keywords": ("vstore(y, 0, value=vload(x, 0, 4))", "emitted code has no"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_emitted_code_never_has_is_refused(case: str, settings: Settings):
    body, message = REFUSED[case]
    lines = "\n".join("    " + line for line in body.splitlines())
    source = f'{HEADER}@kernel("f32* x, f32* y, i64 n")\ndef f(ctx, x, y, n):\n{lines}\n'
    with pytest.raises(InternalError, match=message):
        compile_source(source, settings=dataclasses.replace(settings, cache=False))


def test_a_signature_that_does_not_fit_is_refused(settings: Settings):
    with pytest.raises(InternalError, match="does not match its signature"):
        compile_source(f'{HEADER}@kernel("f32* x")\ndef f(ctx, y):\n    y[0] = f32(1.0)\n', settings=settings)


def test_equal_addresses_are_computed_once(monkeypatch):
    source = (
        f'{HEADER}@kernel("f32* x, i64 n")\ndef f(ctx, x, n):\n    for i in range(n):\n'
        "        x[floordiv_pos(i, 7) * 3] = x[floordiv_pos(i, 7) * 3 + 1] + x[floordiv_pos(i, 7) * 3]\n"
    )
    texts: list[str] = []
    original = frontend.to_bitcode
    monkeypatch.setattr(frontend, "to_bitcode", lambda text: texts.append(text) or original(text))
    bitcode(source, split_functions(source))
    assert sum(line.split("=")[-1].split()[0] in ("udiv", "sdiv", "lshr") for line in texts[0].splitlines() if "=" in line) == 1
    assert "alloca" not in texts[0]
