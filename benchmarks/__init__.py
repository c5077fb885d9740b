"""Scripts that print the README's figures; both sides of every ratio come from one run."""
