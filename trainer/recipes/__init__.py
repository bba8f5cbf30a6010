"""The packaged recipes, one YAML file each. A file never changes: studies that name it would become other studies."""
