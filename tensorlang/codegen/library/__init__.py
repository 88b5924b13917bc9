"""A compiled model as a library for programs in C: planning, thread pool, allocator and C functions around its kernels.

    interface.py   what the library is about: names, sizes, statuses
    planning.py    emitted Python that checks sizes, computes what a run needs, and tells what it found out
    api.py         the C functions, as LLVM text: any triple, pointers of 32 or 64 bits
    module.py      kernels + planning + pool + C functions -> one object file
    archive.py     static libraries, and weights as an object file
    header.py      the header, the JSON description, the example program
"""

from __future__ import annotations

from tensorlang.codegen.library.archive import static_library, weights_object
from tensorlang.codegen.library.header import describe_json, example_text, header_text
from tensorlang.codegen.library.interface import Interface, Status
from tensorlang.codegen.library.module import data_object, library_object

__all__ = [
    "Interface", "Status", "data_object", "describe_json", "example_text", "header_text", "library_object", "static_library",
    "weights_object",
]  # fmt: skip
