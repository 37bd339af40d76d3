"""The benchmark: retrieval tasks in, scores with intervals, baselines and one report out.

`metrics` knows integers only; `tasks` knows files; `systems` knows what ranks documents; `runner` puts them together;
`report` only renders what the others wrote. How a model is trained or registered is nobody's business here.
"""
