"""Models in MLflow's registry: versions, their files, aliases, and the registration that ties run, gate and version."""
