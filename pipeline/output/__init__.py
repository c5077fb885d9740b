"""What lies in a run's folder, and how it is kept in order.

Parts and their commits, shard records, waves, the lease of the one driver, tidying up after an
attempt that was killed, counts, checks, and parts made anew for reading.
"""
