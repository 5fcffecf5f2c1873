"""What every program runs: its process, its plan, its memory check, and the job that it starts."""
