"""Data of the starter checkpoint: pictures, names and texts beyond Atlas, none of them about what Atlas holds out."""
