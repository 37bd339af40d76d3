"""Pairs that somebody has, queries with what answers them, become training examples and held-out tasks."""
