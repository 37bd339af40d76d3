"""A user's corpus embedded into a folder of vectors, which can be resumed, updated and read back."""
