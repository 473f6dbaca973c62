"""Running models on pictures; takes any module."""
