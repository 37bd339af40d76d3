"""Texts without knowledge of passages or models: invisible characters, markup, names."""
