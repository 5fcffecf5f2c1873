"""Mode train: the steps of a run, and everything between two steps."""
