"""Synthetic road scenes: canvas, streets, traffic, and the painter that combines them."""
