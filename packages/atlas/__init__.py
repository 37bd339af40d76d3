"""Atlas, the embedded world: a real corpus and real retrieval tasks of all nine types, built from installable packages.

The package knows where those packages keep their texts and drawings. It knows no model: nothing here embeds, ranks or
trains.
"""
