"""One file a command (or a few that belong together); each imports what is heavy when it runs."""
