"""The verbs of `transkd` that are about studies, one file each; the trainer's own are in trainer/verbs."""
