"""Examples that run, each by ``python -m examples.NAME``: demo, dense, custom_operator, compile_model."""
