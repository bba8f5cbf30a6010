"""The commands of `transkd` for studies, one file each; the trainer's are in trainer/verbs."""
