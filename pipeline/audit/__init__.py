"""The audit of a run: which classes occur with which cues, from stored scores and maps.

`findings.find` shows the order of the steps: `scores` (class sizes and histograms), `presence` (by
`mixture`), `cooccurrence`, `association`, and `ranking`, the table with all flags and reasons.
`evidence` and `class_maps` read maps; `labelled_examples` and `predictions` read the user's tables;
`decisions` keeps verdicts and waivers; `inference` has the intervals that all of them share.
"""
