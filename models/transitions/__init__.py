"""First-order transitions: what is read after what."""
