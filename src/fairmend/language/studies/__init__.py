"""Several judged repairs side by side: compare, equal cost, sweep, collect."""
