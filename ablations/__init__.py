"""Which runs answer the question? Studies, plans, statistics and tables, in plain Python."""
