"""How good an output is: colour, PSNR, SSIM and the protocols that papers report."""
