"""What is compared: the benchmark file, the plan of its jobs, their cost, and their launch."""
