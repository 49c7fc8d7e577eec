"""What sits where: a domain becomes a topology."""
