"""Plans and findings as text, for people and for other programs."""
