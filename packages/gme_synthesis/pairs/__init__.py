"""Imports a user's pairs of queries and documents as training examples and held-out tasks."""
