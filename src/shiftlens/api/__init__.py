"""The Python interface: load a model, explain a response, view the weights, tune."""
