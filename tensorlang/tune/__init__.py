"""Tuning (layer 7)."""
