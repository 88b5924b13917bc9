"""Benchmarks of tensorlang beside its rivals: models, zoo, operators, peers, measuring, report.

Run with ``python -m bench`` from the repository root. Nothing here is installed; nothing in ``tensorlang`` imports it.
"""
