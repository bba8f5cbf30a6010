"""Evaluation: predictions of a student, counted, as metrics and pictures."""
