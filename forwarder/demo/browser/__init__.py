"""Browsers in namespaces against one node: what `vcfwd demo-browser` runs and the tests share."""
