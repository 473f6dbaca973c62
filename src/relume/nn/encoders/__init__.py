"""Networks whose features losses compare: any module, a compiled file, or a VGG from the user's weights."""
