"""The benchmark: retrieval tasks in, scores with intervals, baselines and one report out.

`registry` is the benchmarks as data, `aggregate` their tables. `metrics` knows integers only; `sides` and `tasks` know
rows and judgements; `vectors` keeps what was encoded; `systems` knows what ranks documents; `runner` scores one task,
`suite` a whole benchmark. `mteb_data`, `importers` and `loading` know where data come from; `report` only renders what
the others wrote. How a model is trained or registered is nobody's business here.
"""
