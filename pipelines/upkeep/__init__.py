"""The jobs that keep the house in order: a file each."""
