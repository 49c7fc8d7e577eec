"""Devices that come and go while their domain runs."""
