"""A running host: what it has, what is to be done there, and who asks."""
