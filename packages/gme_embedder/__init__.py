"""The model: prompt, picture, packed Qwen2-VL, pooling; encoding, embedding store, exact search, frozen teachers.

Knows how an item becomes a vector. Knows no training loop, no benchmark, no data set.
"""
