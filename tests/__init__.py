"""Tests mirror the tree of the package."""
