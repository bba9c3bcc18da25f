"""Replay: make a served slate again from its record, and prove that it is the one that was served."""
