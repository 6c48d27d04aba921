"""Effects of single heads: exact, re-weighted, first-order, magnitude."""
