"""How good a method is: predictions image by image, records of them, intervals, the papers' protocols."""
