"""What a row or a set of rows is worth, and what that makes of differences between groups."""
