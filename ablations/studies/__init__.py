"""The packaged studies: one YAML file a question."""
