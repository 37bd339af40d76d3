"""Files that `gme starter --ship` wrote. A package that nobody imports: a step knows the starter by its config alone."""
