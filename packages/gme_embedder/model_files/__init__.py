"""The folder of a model: where it lies, which of its files count, their digests, and whether they are a GME model's.

Imports no torch, so that a folder can be checked before the slow imports.
"""
