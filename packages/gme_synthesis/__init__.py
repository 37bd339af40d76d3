"""Passages and pictures become fused-modal training examples, in the order of the GME paper (section 3).

`corpus` runs the steps of `steps` over a corpus of any kind; some of them ask the language models of `llm`. `pairs` and
`public` import examples that need no synthesis: the user's own pairs and public data sets.
"""
