"""Data and how it is stored: items, examples, tasks, shards, manifests, steps with their keys and atomic publishing.

Knows files and digests; no model, no training, no orchestration. Imports no torch, Prefect, MLflow or DVC.
"""
