"""The benchmark: retrieval tasks in, scores with intervals, baselines and one report out.

`registry` is the benchmarks as data, `aggregate` their tables. `metrics` knows integers only; `sides` and `tasks` know
rows and judgements; `vectors` keeps what was encoded; `systems` knows what ranks documents. `units` says which tasks
judge, `loading` makes one ready, `runner` scores a system on them: for a pipeline's steps through `judging`, for
`gme umrb run` through `suite`. `disk`, `mteb_data` and `importers` know where data come from; `report` only renders
what the others wrote. How a model is trained or registered is nobody's business here.
"""
