"""Where classic TVM compiles C to LLVM's language: no C compiler is needed or used here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tensorlang.errors import TypeCheckError
from tensorlang.interop.tvm.intrin import defined_functions
from tensorlang.ir.expr import user_location


def create_llvm(inputs: str | Sequence[str], output: str | Path | None = None, options: Any = None, cc: Any = None) -> str:
    """C text as it is, checked to define something; the functions in it are known by name, and their meaning is that of the
    tensor intrinsics that call them.

    Args:
        inputs: C text, or several.
        output: a file to write it to.

    Raises:
        TypeCheckError: it defines no function.
    """
    text = inputs if isinstance(inputs, str) else "\n".join(inputs)
    if not defined_functions(text):
        raise TypeCheckError(f"{user_location()}: create_llvm: the text defines no function")
    if output is not None:
        Path(output).write_text(text)
    return text
