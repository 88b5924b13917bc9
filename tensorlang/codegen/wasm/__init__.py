"""WebAssembly modules without a linker (`link_module`), and the JavaScript beside them (`loader_text`)."""

from tensorlang.codegen.wasm.face import NO_SYSTEM, loader_text
from tensorlang.codegen.wasm.link import link_module

__all__ = ["NO_SYSTEM", "link_module", "loader_text"]
