"""The two-tower model (DSSM): a tower for users, one for items, compared by their vectors."""
