"""The innermost loops, in C: exact search, sums of item-to-item rows, trees, walks. Compiled at installation.

Nothing here reads files or knows of bundles; arrays are checked for type, shape and range before they are touched.
"""

from service.native._native import (
    INSTRUCTIONS,
    Forest,
    Scan,
    Sums,
    first_eligible,
    first_twin,
    graph_fault,
    top,
)

__all__ = ["INSTRUCTIONS", "Forest", "Scan", "Sums", "first_eligible", "first_twin", "graph_fault", "top"]
