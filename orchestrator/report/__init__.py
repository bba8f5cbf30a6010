"""The report: a study's table, its files, its page and its bundle."""
