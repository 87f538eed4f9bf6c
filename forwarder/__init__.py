"""vcfwd: the policy plane of the media forwarder."""
