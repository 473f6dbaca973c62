"""Networks that tell real pictures from a network's outputs, one a file; found by their `CONFIG`."""
