"""The store: what is kept on disk. Its folder, journal, ledger, run folders, imports and provenance."""
