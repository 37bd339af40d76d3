"""The files of `make starter SHIP=1`. No module imports this package: a step has the starter's digest in its config."""
