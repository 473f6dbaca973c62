"""Trunks of networks without their heads, `B C H W` to features `B N H W`, for several models to use."""
