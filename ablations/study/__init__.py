"""The study: the schema of its YAML file, and the plan of runs that it expands to."""
