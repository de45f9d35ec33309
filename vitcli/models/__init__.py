"""Architectures: one file each, found by `registry`."""
