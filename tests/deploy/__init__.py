"""Tests of the exports, their proof, and what runs them."""
