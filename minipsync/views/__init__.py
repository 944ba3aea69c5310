"""Views: augmented crops of a test image, and WordNet variants of a class name."""
