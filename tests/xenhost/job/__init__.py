"""What runs inside the emulated host."""
