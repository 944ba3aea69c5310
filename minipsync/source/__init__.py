"""What a method keeps of its source domain: moments, prototypes, a sampler of images."""
