"""The netlink mirror: the only package that speaks netlink.  It reads and never configures."""
