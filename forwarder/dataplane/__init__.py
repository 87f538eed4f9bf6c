"""The contract with vcfwd-dataplane: the only package that imports cffi for it."""
