"""What `make starter SHIP=1` wrote. Nobody imports this package: a step knows the starter by its config alone."""
