"""The native format: what a network computes, as tensors and lines of key=value, for programs in any language.

docs/native.md describes the folder; `reference.py` computes a network from it and from nothing else.
"""
