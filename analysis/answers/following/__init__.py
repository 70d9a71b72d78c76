"""Whether generated answers keep to verifiable instructions: the 25 kinds of IFEval, strictly and loosely."""
