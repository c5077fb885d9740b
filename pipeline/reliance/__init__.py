"""Claims B and C': what the model, and a linear probe on the labels, lose when the cue goes."""
