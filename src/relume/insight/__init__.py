"""What a model does and how well: evaluation and comparison of any module."""
