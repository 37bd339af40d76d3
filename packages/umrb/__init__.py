"""The benchmark: retrieval tasks in, scores with intervals, baselines and one report out.

Imports point one way: `report` -> `scoring` -> `systems` -> `data` -> the modules below them. `registry` holds the
benchmarks as data, `metrics` and `intervals` know numbers only. `data` reads and checks tasks, `systems` rank their
documents, `scoring` runs systems on tasks and writes the results, and `report` renders what was written. Above them
stand the entry points: the steps `evaluation` and `baselines`, `suite` for `gme umrb run`, and `estimates` for
`gme umrb plan`. Nothing here knows how a model is trained or registered.
"""
