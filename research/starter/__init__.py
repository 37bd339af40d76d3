"""Stage 0: makes the checkpoint that the default run starts from, and the data that it is trained on.

The data are pictures, names and texts beyond Atlas, none of them about an entity that Atlas holds out.
"""
