"""The gateway: devices and shops post over HTTP. It writes to the landing zone and to nothing else; what it acknowledges is on disk."""
