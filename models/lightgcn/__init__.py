"""LightGCN: vectors smoothed over the graph of who read what."""
