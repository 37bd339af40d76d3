"""The paper's steps of synthesis for any corpus, each usable alone: candidates in, the same with more columns out.

Every step declares the columns that it reads and writes, and yields each candidate with these filled, or a reject.
"""
