"""The performance rig of vcfwd: see README.md.  Not part of the installed package."""
