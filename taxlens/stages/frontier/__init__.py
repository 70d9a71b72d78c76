"""The frontier stage: how much of the tax each plan gives back, and what it costs in benefit."""
