"""Atlas, the embedded world: a real corpus and real retrieval tasks of all nine types, built from installable packages.

Knows where the packages keep their texts and drawings. Knows no model: nothing here embeds, ranks or trains.
"""
