"""What a language model is measured by: perplexity, toxicity, judgements on held-out prompts."""
