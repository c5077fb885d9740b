"""What Ray Data's workers do to rows: decode, explain, encode, write."""
