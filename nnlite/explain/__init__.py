"""What `nnlite explain` computes, prints and writes."""
