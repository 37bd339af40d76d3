"""The model as it is trained: its inputs, adapters and frozen weights, and how weights are prepared and blended."""
