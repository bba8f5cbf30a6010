"""Preparation: jobs and their ids, limits, search space, this machine, and the estimate of time and cost."""
