"""Suites, relays and meters of the performance rig."""
