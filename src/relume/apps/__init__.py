"""What people touch: command line and Python face."""
