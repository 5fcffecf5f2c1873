"""What the published benchmark programs measure."""
