"""How the embedded mini model was trained and measured; not part of the installed package."""
