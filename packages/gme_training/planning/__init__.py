"""What a training stage would need of given hardware: memory, time, cost and storage, by arithmetic alone.

Loads no weights and asks no device. `docs/planning.md` has the formulas; the tests hold them against real runs.
"""
