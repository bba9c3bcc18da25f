"""LightFM: factors of ids and features together."""
