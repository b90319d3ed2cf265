"""One module for each word of `trail`: its options, and what it prints.
`trail.cli` imports them, each when it is used.
"""
