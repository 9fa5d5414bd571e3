"""The commands of `tidemark`, one module a subject. They talk to people; what they call does not."""
