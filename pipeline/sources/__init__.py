"""Ray Data sources: tars, folders, Parquet and lists of URIs -> rows of encoded bytes.

`planning` cuts the files of a source into `Unit`s without reading an image: a tar, a chunk of a
folder, neighbouring row groups, a piece of a list. Each is one read task, which holds at most

- `input_rows.BLOCK_BYTES` and one image (tars, read front to back),
- that and `machine.IO_THREADS` images (folders and lists, which ask the storage for many at once),
- two blocks and a page of every column (Parquet: an Arrow batch and the block made of it),

and the table of labels, where there is one, once a process. `fetch` finds any image again.
"""
