"""Arrays to probes, similarity and spectra: small frozen objects, no models and no files."""
