"""What `gme starter --ship` wrote. Nobody imports this package: a step knows the starter by its config alone."""
