"""Feed-forward layers read as concepts, base against tuned."""
