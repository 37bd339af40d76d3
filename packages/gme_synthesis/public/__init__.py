"""Training sets that somebody published, by name: the registry, fetching, and the step that makes a corpus of them."""
