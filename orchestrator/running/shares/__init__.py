"""The share of a cluster that each study has."""
