"""Published training sets by name: the registry, fetching, and the step that makes a corpus of them."""
