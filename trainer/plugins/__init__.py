"""Users' own modules: loaded from a config's plugins, so that their names stand beside ours."""
