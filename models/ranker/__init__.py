"""The second stage: a learned ranker of candidates that other models retrieve."""
