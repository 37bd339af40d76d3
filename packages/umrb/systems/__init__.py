"""Whatever ranks the documents of a task: models by their vectors, lexical search, chance."""
