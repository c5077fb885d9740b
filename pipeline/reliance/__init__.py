"""Reliance: what the model, and a linear probe on the labels, lose when the cue is deleted.

In order: `shortlist` (pairs and images), `editor` (finds `regions` and makes `edits`) on the
workers of `edit_run`, then `probe`, `effects` and `claims` with their `reasons`. `reliance` ties
them together; `edit_examples` and `probe_maps` show single images.
"""
