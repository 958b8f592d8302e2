"""A table of answers: read, aligned, grouped; what everything right of training needs and nothing more."""
