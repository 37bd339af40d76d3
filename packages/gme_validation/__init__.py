"""Great Expectations suites over every dataset, leakage and contamination checks, and a verdict that stops the chain.

The package reads the tables on disk; it knows neither how they were made nor any model. Nothing else imports
great_expectations.
"""
