"""What policy must know of RTP: kinds, codecs, protection profiles.  No packets."""
