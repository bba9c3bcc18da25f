"""Bandits: learn which of a few arms pays best by choosing among them."""
