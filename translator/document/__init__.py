"""What a document says: its bytes checked, read and edited."""
