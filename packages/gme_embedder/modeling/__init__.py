"""The model: the backbones of transformers, and their packed forward from token ids and patches to unit vectors.

Knows tensors and weights; neither items nor data sets.
"""
