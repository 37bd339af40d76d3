"""Scores of systems on tasks: the runner, what it writes, and what is computed from it."""
