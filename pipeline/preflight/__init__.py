"""Before a model loads: does the plan fit the nodes, and can each node do its part?"""
