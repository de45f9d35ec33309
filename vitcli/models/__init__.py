"""Architectures: one file each, created by name through `registry`."""
