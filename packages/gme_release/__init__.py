"""Lineage and records: bytes in DVC, runs and models in MLflow, a gate between a model and its registration.

The only importer of mlflow and dvc. Knows manifests and scores; knows no model, no training and no orchestrator.
"""
