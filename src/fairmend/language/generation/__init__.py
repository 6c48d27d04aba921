"""Continuations of prompts: decoding, coupled random numbers, likelihoods and samples."""
