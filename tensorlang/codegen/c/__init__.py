"""Kernel IR as C99: the same loops, names and comments as the emitted Python, in a language for machines without Python.

    emitted Python                                      emitted C
    for i in range(128):                                for (int32_t i = 0; i < 128; ++i) {
        y[i] = maximum(x[i], f32(0.0))                      y[i] = tl_max_f32(x[i], 0.0f);
                                                        }

No memory is allocated: what a kernel needs beside its tensors is a parameter of it, or a small array on the stack. What C
leaves undefined and the IR defines (overflow of integers, division by zero, shifts, conversions out of range) goes through
the functions named `tl_...`, which `helpers` writes out where a kernel uses them.
"""
