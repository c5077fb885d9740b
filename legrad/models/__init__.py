"""open_clip models: which exist, how they are loaded, their weights and tokenizers."""
