"""Symbolic analysis (layer 2)."""
