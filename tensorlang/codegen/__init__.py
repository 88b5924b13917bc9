"""Code generation (layer 3)."""
