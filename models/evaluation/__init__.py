"""Measures a bundle through the serving line, and what else its lists are like."""
