"""What can be wrong with a simulation's input. One line for a person, exit code 2."""

from __future__ import annotations


class SimulatorError(ValueError):
    """Input that no simulation can run on; the message names the file, row or flag and the value."""
