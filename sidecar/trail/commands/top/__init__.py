"""`trail top`: what sidecars do at present, in a terminal."""
