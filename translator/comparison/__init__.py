"""What leads from one plan to another, by meaning."""
