"""Tracking: MLflow's server and address, and how a run looks there."""
