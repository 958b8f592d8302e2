"""Numbers in, numbers out: intervals, resampling, permutation, paired comparison, ranking, power."""
