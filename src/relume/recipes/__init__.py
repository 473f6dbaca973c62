"""Complete training runs, one file a method."""
