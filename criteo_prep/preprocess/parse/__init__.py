"""Input files -> columns of numbers: every row is parsed once."""
