"""EASE: a linear item-to-item model with a closed form."""
