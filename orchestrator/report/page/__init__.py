"""The page: a study's report as one self-contained HTML file, a figure a file."""
