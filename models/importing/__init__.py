"""Vectors and recommendation lists made elsewhere, as a bundle."""
