"""The demo: three hosts on one machine, a call across the node, and the books that must balance."""
