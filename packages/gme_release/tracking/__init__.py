"""Runs in MLflow: followed while they work, sent by an outbox on disk, filled with what they made."""
