"""Packs: a split decoded once, at its input size, in files that runs map into memory."""
