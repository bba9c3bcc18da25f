"""Reads the log: what an experiment changed, what another policy would have earned, how the product does."""
