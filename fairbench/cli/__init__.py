"""The command line: one file for each group of commands; each parses, calls one function, prints."""
