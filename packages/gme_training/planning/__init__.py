"""Estimates what a training stage needs of given hardware: memory, time, cost and storage, by arithmetic alone.

Loads no weights and queries no device. `docs/planning.md` has the formulas; the tests compare them with real runs.
"""
