"""Kernel IR as OpenCL C: loops bound to `blockIdx` are work groups, those bound to `threadIdx` work items, memory that a work
group shares is `__local`, with barriers. Expressions and what they call are those of `codegen.c`."""
