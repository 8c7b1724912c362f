"""Private parts of libraries, one module per library: what an upgrade may move is mended here alone."""
