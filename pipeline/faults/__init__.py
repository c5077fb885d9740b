"""What may go wrong in a run, and what happens then: probes before, retries and guards meanwhile,
a second pass in processes that may die, one clear message at the end.
"""
