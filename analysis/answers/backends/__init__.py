"""Other engines that generate and score, each held against the Hugging Face model before it is used."""
