"""May a model be registered? Scores of each query, the comparison with the champion, the policy and the decision."""
