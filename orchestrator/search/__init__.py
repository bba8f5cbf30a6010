"""Search: Optuna and early stopping under Tune, importances and the Optuna dashboard."""
