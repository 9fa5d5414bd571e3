"""Other loaders, as scripts for their own environment."""
