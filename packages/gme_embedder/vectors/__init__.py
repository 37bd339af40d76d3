"""Vectors and their search: arrays on disk, the store of embeddings, exact and approximate nearest neighbours.

Knows neither models nor items.
"""
