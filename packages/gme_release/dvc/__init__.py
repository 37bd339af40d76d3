"""Bytes in DVC: configuration, pointers, pushes, and the check of its object stores."""
