"""The steps of the paper for any corpus, each usable alone: candidates in, the same with more columns filled out.

Every step declares what it reads and writes and yields for each candidate either how to go on or why it is refused.
"""
