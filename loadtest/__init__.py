"""Outside-in: drives a running service over HTTP and knows nothing of its insides."""
