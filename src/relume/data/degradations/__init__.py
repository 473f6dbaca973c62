"""What happened to a clean picture to make the input, one file an idea."""
