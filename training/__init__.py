"""How the embedded mini model and the vocabulary were made; not part of the installed package."""
