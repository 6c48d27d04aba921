"""Tables of people: read, described, encoded, split."""
