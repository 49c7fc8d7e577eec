"""What is known of controller models, device kinds and their properties."""
