"""Statistics: from the outcomes of runs to verdicts on contrasts and effects."""
