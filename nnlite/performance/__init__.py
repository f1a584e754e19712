"""How long things take, and why: counts, peak rates, paired rounds and their statistics, the time model."""
