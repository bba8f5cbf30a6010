"""Training: fit() and its parts."""
