"""Write a first configuration for a data set, with class queries for its labels.

`files.write_starter` does it; `promotion` writes the configuration of a later run with new queries.
"""
