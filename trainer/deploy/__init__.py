"""Use of a trained student: open it, predict with it, export it."""
