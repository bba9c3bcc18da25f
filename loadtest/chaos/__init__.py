"""Faults done to a real service from outside, and what became of the promises meanwhile."""
