"""Neighbourhood models: which items are read by the same people."""
