"""The rooms of the house: contracts, landing, warehouse, transform, simulator, stack, and the `tidemark` command."""
