"""Named queries as directions in the embedding space, and which of them get a map."""
