"""Sequence towers: a history becomes the vector of what comes next."""
