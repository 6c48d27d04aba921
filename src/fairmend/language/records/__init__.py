"""What a repair writes: results, saved models, cards, fronts."""
