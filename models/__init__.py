"""Offline: turns interactions into a verified bundle, and measures it through the serving line."""
