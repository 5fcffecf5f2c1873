"""Batches of samples for one rank."""
