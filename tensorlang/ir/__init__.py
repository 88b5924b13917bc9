"""Layer 1: the two-level IR (expressions; loop nests) and everything that only needs its definition.

`expr` and `stmt` begin with the grammar. `str(func)` is deterministic and parses back; `interp` is the living definition.
"""

from tensorlang.ir.printer import format_func, format_stmt  # importing it gives statements and functions their text

__all__ = ["format_func", "format_stmt"]
