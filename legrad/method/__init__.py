"""The method of the paper: LeGrad's relevance in closed form, and the explainer that runs it."""
