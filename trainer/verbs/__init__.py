"""The verbs of `python -m trainer`, one file each; `trainer.cli` mounts them."""
