"""Judging: the table, verdicts and page of scores that anybody measured, from a file, MLflow or Python."""
