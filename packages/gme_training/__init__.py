"""Contrastive training: batches, loss, the DeepSpeed engine on any number of ranks, checkpoints, hard negatives.

Knows examples and the embedder. Knows no orchestrator, no tracking server and no benchmark.
"""
