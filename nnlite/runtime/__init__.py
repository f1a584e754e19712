"""Basics that every other package uses: threads, memory, random numbers, errors, files."""
