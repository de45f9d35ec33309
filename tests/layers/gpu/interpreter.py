"""A pytest plugin for the interpreter of Triton: without its check of each sum of integers, it is twice as fast."""

from triton.runtime.interpreter import interpreter_builder

object.__setattr__(interpreter_builder.options, "sanitize_overflow", False)
