"""The loop whole: serve, listen, log, learn, evaluate, publish while it serves, and again."""
