"""Tables: from verdicts to rows, notes, text and LaTeX."""
