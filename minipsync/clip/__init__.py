"""CLIP with prompts in its encoders: loading one, packing texts for it, walking through its blocks."""
