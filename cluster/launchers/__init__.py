"""Launcher files: what starts the machines of a cluster, read and checked against a cluster spec."""
