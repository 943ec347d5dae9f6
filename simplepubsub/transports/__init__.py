"""Carriers of frames: everything that touches a socket lives here."""
