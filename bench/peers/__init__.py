"""The engines that are measured: each is made ready once, and visited round by round."""
