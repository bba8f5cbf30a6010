"""Events of runs, as a driver writes them into the ledger."""


def started(run_id, **more):
    """The start of a run, as seed 0 of an arm."""
    return {"event": "started", "run_id": run_id, "key": f"k-{run_id}", "study": "s", "arm": "a", "seed": 0, **more}
