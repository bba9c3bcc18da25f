"""Factorizations trained by gradient steps, beside ALS: BPR and logistic, and the textbook one on ratings."""
