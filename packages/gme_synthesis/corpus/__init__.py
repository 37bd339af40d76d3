"""Synthesis over a corpus, Atlas or the user's own: its import, the steps shard by shard, selection, and the report."""
