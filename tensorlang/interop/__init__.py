"""Interfaces of other systems (layer 8)."""
