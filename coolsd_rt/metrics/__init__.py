"""Measures of images: FID, CLIP score, retrieval, reward models. Knows images and references; does not draw images."""
