"""WebAssembly modules without a linker: `link_module`."""

from tensorlang.codegen.wasm.link import link_module

__all__ = ["link_module"]
