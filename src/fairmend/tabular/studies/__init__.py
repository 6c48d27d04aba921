"""Several judged repairs side by side: compare, sweep, reproduce."""
