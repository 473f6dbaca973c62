"""Models that repair pictures of any size and keep it."""
