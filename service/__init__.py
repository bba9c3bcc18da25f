"""The serving image: turns a user id into a slate of items inside a deadline, and never fails to answer."""
