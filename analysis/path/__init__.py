"""Path attribution: the tax as a sum over weights, by integrating along the path from base to aligned."""
