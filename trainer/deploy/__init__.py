"""A trained student, opened, used or exported."""
