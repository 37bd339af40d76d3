"""`gme <verb>`: the terminal's face of every package below. Parses, calls, prints; decides nothing."""
