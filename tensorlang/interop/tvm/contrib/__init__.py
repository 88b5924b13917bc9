"""Helpers of classic TVM's `tvm.contrib` that its te tutorials use."""

from tensorlang.interop.tvm.contrib import cblas, cc, clang, utils

__all__ = ["cblas", "cc", "clang", "utils"]
