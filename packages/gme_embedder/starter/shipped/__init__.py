"""The files of `gme starter --ship`. No module imports this package: a step has the starter's digest in its config."""
