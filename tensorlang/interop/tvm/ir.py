"""Registration of operators and their lowering, as classic TVM's `tvm.ir` has it."""

from tensorlang.interop.tvm.lowering import Lowered as IRModule
from tensorlang.interop.tvm.tir.calls import Op, register_intrin_lowering, register_op_attr

__all__ = ["IRModule", "Op", "register_intrin_lowering", "register_op_attr"]
