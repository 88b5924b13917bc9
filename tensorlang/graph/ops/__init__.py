"""Graph operators by family."""
