"""Synthesis over a corpus of one's own: passages and pictures of anything, as `gme corpus import` stores them."""
