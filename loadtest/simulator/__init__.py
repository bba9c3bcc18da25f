"""A simulated audience: people with tastes who listen, get bored and leave. Knows services by HTTP only."""
