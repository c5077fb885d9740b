"""Files on disks and in buckets: locations, retries, and tables of users."""
