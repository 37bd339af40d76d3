"""Serves a model over HTTP: an OpenAI-style embeddings API, dynamic batching, metrics, and a small search page.

Knows HTTP and how to keep one model busy; knows neither how a vector is computed nor where models are registered.
"""
