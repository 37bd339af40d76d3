"""What a sample is and how it is kept: items, examples, tasks, shards, manifests, atomic publish, step keys.

Knows files and digests. Knows no model, no training, no orchestration: no torch, Prefect, MLflow or DVC here.
"""
