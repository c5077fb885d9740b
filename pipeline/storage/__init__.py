"""Files on disks and in buckets: locations, retries, and the tables that users provide."""
