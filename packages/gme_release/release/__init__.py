"""A release: one signed folder whose canonical record says what the model is, and from what it was made."""
