"""Synthetic road scenes: a painter's canvas, streets and traffic."""
