"""On what machines do runs run? Cluster specs, launcher files and their lint."""
