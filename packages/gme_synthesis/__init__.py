"""Passages and pictures become fused-modal training examples, in the order of the GME paper (section 3).

Knows the train part of a corpus on disk and one frozen text encoder. Knows no trained model, no test data, no
orchestrator.
"""
