"""Graph IR (layer 6)."""
