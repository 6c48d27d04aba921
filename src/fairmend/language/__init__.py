"""The language wing: attention heads of a causal language model, measured, ranked and switched off."""
