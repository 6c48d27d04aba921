"""Feed-forward networks: layers, activations, training, baking of masks."""
