"""Running: one run under Ray. Session, trial, retries, Tuner, callbacks and Ray's failures."""
