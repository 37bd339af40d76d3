"""A release: one signed folder whose canonical record says what the model is and what it was made from."""
