"""API keys: their form, the gateway's memory of them, and how they are made, rotated and revoked (docs/decisions/0025-api-keys.md)."""
