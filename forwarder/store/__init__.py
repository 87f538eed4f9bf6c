"""State that outlives the supervisor: rooms on disk, sessions and their secrets on tmpfs."""
