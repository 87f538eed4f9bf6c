"""The host: what it is, what it should be, and the way between; alone in writing /sys, /proc."""
