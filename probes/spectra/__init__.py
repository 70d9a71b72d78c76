"""Spectra: along which directions aligned gained or lost variance that base had."""
