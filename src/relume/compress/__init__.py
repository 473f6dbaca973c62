"""Making models small; takes any module."""
