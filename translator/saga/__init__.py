"""A plan carried out: all of it or nothing, whatever dies meanwhile."""
