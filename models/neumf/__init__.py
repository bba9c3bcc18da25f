"""NeuMF: users and items matched by a product and by layers, side by side."""
