"""What a run writes down: its log, TensorBoard's scalars, the times of its steps, a profile."""
