"""Models whose activations can be read, replaced and run on from."""
