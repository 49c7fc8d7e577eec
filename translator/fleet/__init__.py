"""Many documents, on many cores or machines."""
