"""What everything stands on: threads, memory, random numbers, errors, files."""
