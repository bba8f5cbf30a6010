"""The terminal: what is printed. Plan listing, cost, log lines, live view and tables."""
