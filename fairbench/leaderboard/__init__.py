"""From a folder of runs to a board: collected, measured, compared, flagged, put into words, suppressed."""
