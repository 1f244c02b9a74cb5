"""Robots: discs with brakes that follow a mean field policy and never touch."""
