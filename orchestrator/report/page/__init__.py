"""The page: a study's report as one self-contained HTML file. Each section has a module here."""
