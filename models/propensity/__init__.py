"""Propensity: how likely a pair was to be seen at all, and training that makes up for it. Offline only."""
