"""Tasks to score: where their data come from, how they are read, numbered and checked."""
