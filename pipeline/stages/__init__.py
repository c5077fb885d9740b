"""The work of Ray Data's workers on rows: decode, explain, encode, write."""
