"""Provides the Python interface: load a model, explain a response, analyze the weights, tune."""
