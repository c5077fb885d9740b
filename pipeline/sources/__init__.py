"""Ray Data sources: WebDataset tars and image folders -> rows of encoded bytes.

Every source is a list of `Unit`s (a tar, a chunk of a folder), each read by one task, which holds
at most `BLOCK_BYTES` plus one image in memory.
"""
