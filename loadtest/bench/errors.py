"""What ends a bench."""


class BenchError(Exception):
    """It could not be run, or a service answered wrongly; the message says which and why."""
