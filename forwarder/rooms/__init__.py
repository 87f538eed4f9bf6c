"""Rooms, participants, tracks, subscriptions: sans-IO."""
