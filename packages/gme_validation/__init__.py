"""Great Expectations suites over every dataset, leakage and contamination checks, and a verdict that stops the chain.

Knows the tables on disk. Knows neither how they were made nor any model. The only place that
imports great_expectations.
"""
