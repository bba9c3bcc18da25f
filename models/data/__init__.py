"""Read interactions of any layout, make some up, split them."""
