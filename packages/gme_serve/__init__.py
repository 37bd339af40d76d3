"""The model behind an address: an OpenAI-style embeddings API, dynamic batches, metrics, a small search page.

Knows HTTP and how to keep one model busy; knows neither how a vector is computed nor where models are registered.
"""
