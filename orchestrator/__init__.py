"""When are runs run, and what came out? Ray Tune, Ray Train, Optuna, MLflow, the ledger and reports."""
