"""Files on disks and in buckets: locations, retries, and the tables of users."""
