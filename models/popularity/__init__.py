"""What is read most: by everybody, lately, and by people alike."""
