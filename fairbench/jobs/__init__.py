"""What is run and what it leaves: the only place that knows how a folder of runs is laid out."""
