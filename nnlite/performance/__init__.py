"""Performance: counts, peak rates, interleaved rounds and their statistics, the time model."""
