"""Ray Data sources: tars, folders, Parquet and lists of URIs -> rows of encoded bytes.

`planning` cuts the files of a source into `Unit`s without reading an image: a tar, a chunk of a
folder, neighbouring row groups, or a part of a list. A read task holds in memory at most

- `input_rows.READ_BLOCK_BYTES` and one image (tars, which are read front to back),
- that and `machine.IO_THREADS` images (folders and lists, which ask the storage for many at once),
- two blocks and a page of every column (Parquet: an Arrow batch and the block made of it),

and each process holds the table of labels once. `fetch` reads single images again.
"""
