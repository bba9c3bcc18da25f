"""What items are about: the only thing known of one that nobody has read yet."""
