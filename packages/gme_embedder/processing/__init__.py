"""From an item to a packed batch: what callers may hand over, the prompt, pictures and their patches.

Knows the tokenizer and the settings of the inputs; never touches a weight.
"""
