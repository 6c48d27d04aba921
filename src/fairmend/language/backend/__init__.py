"""What we ask of transformers and torch: versions, the forward pass, batches, stored formats."""
