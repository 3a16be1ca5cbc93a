"""For who teaches: whether one machine carries a class."""
