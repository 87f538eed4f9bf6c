"""vcfwd: the policy plane of the media forwarder."""

__version__ = "0.1.0"
